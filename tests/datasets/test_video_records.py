"""Videos as data: which frames become records, and that any order and any process reads the same pixels."""

import random
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from difom_cache import Record, load_records, make_manifest, read_image
from difom_cache.data import (
    NEAR_BITS,
    DataSource,
    check_unchanged,
    find_twins,
    parse_every,
    read_manifest,
    take_fingerprint,
)
from difom_cache.errors import DataError, ManifestError, SettingsError

av = pytest.importorskip("av", reason="PyAV is not installed (pip install '.[video]'), so no video is read")


def paint_scene(seed: int, width: int = 96, height: int = 64) -> NDArray[np.uint8]:
    """Return a picture (H, W, 3) of broad blobs that no other seed's is near to."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = np.full((height, width, 3), 60.0)
    for _ in range(9):
        centre, size = rng.uniform(0, 1, 2) * (height, width), rng.uniform(6, 20)
        picture += rng.uniform(-90, 90, 3) * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / size**2)[..., None]
    return picture.clip(0, 255).astype(np.uint8)


def write_video(
    path: Path,
    pictures: Sequence[NDArray[np.uint8]],
    *,
    rate: int = 10,
    codec: str = "libx264",
    times: Sequence[int] = (),
) -> Path:
    """Write a video with B frames and few key frames, where the codec has them; `times` in ms replace an even rate."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        if codec != "ffv1":
            stream.gop_size = 25
        if times:
            stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decode(path: Path) -> list[NDArray[np.uint8]]:
    """Every frame, by PyAV alone."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def frame_times(path: Path) -> list[Fraction]:
    """Seconds from the first frame of every frame, by PyAV alone; containers do not keep even rates exactly."""
    with av.open(str(path)) as container:
        times = [frame.pts * frame.time_base for frame in container.decode(video=0)]
    return [time - times[0] for time in times]


def times_of(records: Sequence[Record]) -> list[str]:
    return [record.id.rpartition("/")[2] for record in records]


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg"


def test_a_frame_every_half_second_is_the_first_at_or_after_it(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ward" / "clip.mkv", [paint_scene(n) for n in range(22)], codec="ffv1")
    records = load_records(tmp_path / "ward")
    assert times_of(records) == ["00000.000", "00000.500", "00001.000", "00001.500", "00002.000"]
    frames = decode(path)
    for record, number in zip(records, (0, 5, 10, 15, 20), strict=True):
        assert (read_image(record.image) == frames[number]).all()
        assert (record.width, record.height, record.mask, record.split) == (96, 64, None, "train")
    assert {(record.dataset, record.group) for record in records} == {("ward", "ward/clip")}
    assert times_of(load_records(DataSource(path, every="0.7s"))) == [
        "00000.000",
        "00000.700",
        "00001.400",
        "00002.100",
    ]
    assert load_records(path) == records


def test_gaps_and_uneven_times_give_each_frame_once(tmp_path: Path) -> None:
    times = [0, 40, 480, 520, 2600, 2640]
    write_video(tmp_path / "a" / "b.mkv", [paint_scene(n) for n in range(6)], codec="ffv1", times=times)
    records = load_records(DataSource(tmp_path / "a", every="500ms"))
    assert times_of(records) == ["00000.000", "00000.500", "00001.000"]
    frames = decode(tmp_path / "a" / "b.mkv")
    assert [next(n for n, f in enumerate(frames) if (f == read_image(r.image)).all()) for r in records] == [0, 3, 4]


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.mkv", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video"), ("a.webm", "libvpx-vp9")],
)
def test_any_order_reads_the_frames_of_a_reading_from_the_start(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(tmp_path / name, [paint_scene(n // 3) for n in range(300)], rate=25, codec=codec)
    frames, times = decode(path), frame_times(path)
    records = load_records(DataSource(path, every="1s"))
    assert len(records) == 12
    shuffled = [*records, *records]
    random.Random(0).shuffle(shuffled)
    for record in shuffled:
        wanted = Fraction(record.id.rpartition("/")[2])
        number = next(n for n, time in enumerate(times) if time >= wanted)
        assert (read_image(record.image) == frames[number]).all(), record.id
        check_unchanged(record)


def test_near_duplicates_are_left_out_by_both_hashes(tmp_path: Path) -> None:
    pictures = [paint_scene(n) for n in range(4)]
    order = [0, 0, 1, 1, 0, 2, 3, 3, 1]
    write_video(tmp_path / "a" / "b.mkv", [pictures[n] for n in order], rate=2, codec="ffv1")
    assert not find_twins([take_fingerprint(picture) for picture in pictures], near_bits=NEAR_BITS)
    assert times_of(load_records(tmp_path / "a")) == ["00000.000", "00001.000", "00002.500", "00003.000"]


def test_folders_of_videos_are_one_set_with_a_group_a_video(tmp_path: Path) -> None:
    for name in ("anna/1.mp4", "bert/1.mp4", "test/c.mp4"):
        write_video(tmp_path / "ward" / name, [paint_scene(10 * len(name) + ord(name[0]) + n) for n in range(10)])
    records = load_records(tmp_path / "ward")
    assert {(record.group, record.split) for record in records} == {
        ("ward/anna/1", "train"),
        ("ward/bert/1", "train"),
        ("ward/test/c", "test"),
    }
    grouped = load_records(DataSource(tmp_path / "ward", group_by=r"^(\w+)/"))
    assert {record.group for record in grouped} == {"ward/anna", "ward/bert", "ward/test"}


@pytest.mark.parametrize("mask", ["masks/exam.mkv", "GT/exam.mp4", "exam_mask.mp4"])
def test_videos_of_masks_are_no_images(tmp_path: Path, mask: str) -> None:
    write_video(tmp_path / "set" / "exam.mp4", [paint_scene(n) for n in range(3)])
    write_video(tmp_path / "set" / mask, [np.zeros((64, 96, 3), np.uint8)] * 3)
    with pytest.raises(DataError, match=rf"videos of masks \({mask}\)"):
        load_records(tmp_path / "set")
    write_video(tmp_path / "masks" / "other" / "exam.mp4", [paint_scene(n) for n in range(3)])
    assert load_records(tmp_path / "masks" / "other")  # what the folder above is called says nothing


def test_a_second_reading_decodes_nothing_and_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video(tmp_path / "ward" / "clip.mp4", [paint_scene(n) for n in range(30)])
    first = load_records(tmp_path / "ward")
    monkeypatch.setattr(av, "open", None)
    assert load_records(tmp_path / "ward") == first
    path.rename(path.with_name("other.mp4"))  # remembered by what it contains, not by its name
    assert [r.image_sha256 for r in load_records(tmp_path / "ward")] == [r.image_sha256 for r in first]


def test_what_is_remembered_and_damaged_is_found_anew(tmp_path: Path, own_memory: Path) -> None:
    write_video(tmp_path / "ward" / "clip.mp4", [paint_scene(n) for n in range(30)])
    first = load_records(tmp_path / "ward")
    (note,) = (own_memory / "difom" / "videos").iterdir()
    for text in ("", "{", '{"frames": [{"time_ms": 0}], "near": 0}', '{"frames": [], "near": 0}'):
        note.write_text(text)
        assert load_records(tmp_path / "ward") == first


def test_a_manifest_names_frames_and_writes_no_picture(tmp_path: Path) -> None:
    path = write_video(tmp_path / "ward" / "clip.mp4", [paint_scene(n) for n in range(30)])
    records, _ = make_manifest(tmp_path / "ward", tmp_path / "ward" / "m.csv")
    assert "clip.mp4#t=00001.000" in (tmp_path / "ward" / "m.csv").read_text()
    assert read_manifest(tmp_path / "ward" / "m.csv") == records == load_records(tmp_path / "ward" / "m.csv")
    assert {each.name for each in (tmp_path / "ward").iterdir()} == {"clip.mp4", "m.csv"}
    path.unlink()
    with pytest.raises(ManifestError, match=rf": {len(records)} files are not there, the first is \S+clip\.mp4#t"):
        load_records(tmp_path / "ward" / "m.csv")


def test_another_video_under_the_name_is_refused_with_both_digests(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", [paint_scene(n) for n in range(30)])
    record = load_records(path)[1]
    path.unlink()
    write_video(path, [paint_scene(50 + n) for n in range(30)])
    with pytest.raises(ManifestError, match=rf"a\.mp4#t=00000\.500: changed since .*{record.image_sha256[:12]}"):
        check_unchanged(record)
    path.unlink()
    write_video(path, [paint_scene(0)])
    with pytest.raises(DataError, match=r"a\.mp4: the video ends before the frame"):
        check_unchanged(record)


@pytest.mark.parametrize(("text", "ms"), [("0.5s", 500), ("0.5", 500), ("40ms", 40), ("2min", 120_000), ("1 s", 1000)])
def test_every_is_seconds_unless_it_says_so(text: str, ms: int) -> None:
    assert parse_every(text) == ms


@pytest.mark.parametrize("text", ["", "0", "0.0001s", "1.5ms", "-1s", "half a second", "1h"])
def test_every_that_means_nothing_is_one_line(text: str) -> None:
    with pytest.raises(SettingsError, match="expected seconds between frames"):
        parse_every(text)


def test_every_without_videos_and_damaged_videos_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"no video")
    with pytest.raises(DataError, match=r"x\.mp4: expected a video"):
        load_records(tmp_path / "x.mp4")
    (tmp_path / "m.csv").write_text("id\n")
    with pytest.raises(SettingsError, match="--every is for videos"):
        load_records(DataSource(tmp_path / "m.csv", every="1s"))
