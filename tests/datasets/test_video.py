"""A video's frames are what a player shows: upright, of square pixels, in the stream's colours; or it is refused."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from painted_videos import name_corners, paint_corners, turn_video, write_colour, write_video

from difom_cache import load_records, read_image
from difom_cache.data import VIDEO_SUFFIXES, VideoReader, video
from difom_cache.errors import DataError, DifomWarning, SettingsError

av = pytest.importorskip("av", reason="PyAV is not installed (pip install '.[video]'), so no video is read")


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


@pytest.mark.parametrize(
    ("turn", "seen"),
    [
        ("90", "br.g"),
        ("180", ".bgr"),
        ("270", "g.rb"),
        ("mirrored", "gr.b"),
        ("upside down", "b.rg"),
        ("mirrored, 90", "rbg."),
    ],
)
def test_a_frame_is_turned_as_the_display_matrix_says(tmp_path: Path, turn: str, seen: str) -> None:
    assert name_corners(paint_corners()) == "rgb."
    path = turn_video(write_video(tmp_path / "a.mp4", [paint_corners()] * 3), turn)
    (record,) = load_records(path)
    assert name_corners(read_image(record.image)) == seen
    assert (record.width, record.height) == ((48, 64) if "90" in turn or turn == "270" else (64, 48))
    assert record.reading == 2


def test_a_frame_that_is_stored_as_it_is_shown_is_read_as_ever(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [paint_corners()] * 3)
    (record,) = load_records(path)
    with av.open(str(path)) as container:
        stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert (read_image(record.image) == stored).all() and record.reading == 1


def test_a_matrix_that_no_player_shows_upright_is_refused(tmp_path: Path) -> None:
    path = turn_video(write_video(tmp_path / "a.mp4", [paint_corners()] * 3), "askew")
    with pytest.raises(DataError, match=r"a\.mp4: its frames are shown askew"):
        load_records(path)


@pytest.mark.parametrize(("sides", "width"), [(Fraction(4, 3), 85), (Fraction(8, 9), 57), (Fraction(1), 64)])
def test_pixels_are_made_square(tmp_path: Path, sides: Fraction, width: int) -> None:
    path = write_video(tmp_path / "a.mkv", [paint_corners()] * 3, sides=sides)
    (record,) = load_records(path)
    assert (record.width, record.height) == (width, 48)
    assert name_corners(read_image(record.image)) == "rgb."
    assert record.reading == (1 if sides == 1 else 2)


def test_pixels_of_ten_to_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"with pixels of 10 to 1"):
        load_records(write_video(tmp_path / "a.mkv", [paint_corners()] * 3, sides=Fraction(10)))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 5, 9])
def test_colours_are_those_that_the_stream_states(tmp_path: Path, matrix: int, full: bool) -> None:
    path = write_colour(tmp_path / "a.mp4", (200, 60, 40), matrix, full=full)
    picture = next(iter(VideoReader(path))).picture
    assert np.abs(picture.astype(int) - (200, 60, 40)).max() <= 2


def test_a_pyav_that_reads_colours_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "av", SimpleNamespace(__version__="14.2.0"))
    with pytest.raises(SettingsError, match=r"PyAV 14\.2\.0 reads the colours of videos wrong; 17 or newer"):
        video.load_av()


def test_interlaced_frames_are_said(tmp_path: Path) -> None:
    pictures = [paint_corners()] * 3
    path = write_video(tmp_path / "a.mpg", pictures, codec="mpeg2video", pixels="yuv420p", interlaced=True)
    with pytest.warns(DifomWarning, match=r"a\.mpg is interlaced.*bwdif"):
        load_records(path)
    load_records(write_video(tmp_path / "b.mpg", pictures, codec="mpeg2video", pixels="yuv420p"))


def test_a_size_that_changes_is_refused_with_the_frame(tmp_path: Path) -> None:
    parts = [
        write_video(tmp_path / f"{width}.ts", [paint_corners(48, width)] * 6, codec="mpeg2video", pixels="yuv420p")
        for width in (64, 96)
    ]
    path = tmp_path / "a.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(path)) as container:
        widths = [frame.width for frame in container.decode(video=0)]
    first = widths.index(96)
    with pytest.raises(DataError, match=rf"a\.ts: frame {first} has 96 x 48 px, those before it have 64 x 48"):
        load_records(path)


@pytest.mark.parametrize("suffix", [".3gp", ".flv", ".m2ts", ".mpg", ".mts", ".ts", ".vob"])
def test_what_recorders_call_a_video_is_one(tmp_path: Path, suffix: str) -> None:
    assert suffix in VIDEO_SUFFIXES
    codec = "libx264" if suffix in (".3gp", ".flv", ".mts", ".m2ts") else "mpeg2video"
    path = write_video(tmp_path / f"a{suffix}", [paint_corners()] * 6, codec=codec, pixels="yuv420p")
    (record,) = load_records(tmp_path)
    assert name_corners(read_image(record.image)) == "rgb."
    assert path.name in record.image.name
