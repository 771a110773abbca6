"""Polyps marked in folders, lists and videos, at original size, with nothing left out unsaid."""

import json
import os
import resource
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray
from painted_frames import paint_frame, save_small_student
from painted_videos import name_corners, paint_corners, turn_video
from painted_videos import write_video as write_corners
from PIL import Image

from difom_cache import read_image
from difom_cache.errors import DataError, SettingsError
from difom_train import predict
from difom_train.inference import draw_outline, list_polyps

av = pytest.importorskip("av", reason="PyAV is not installed (pip install '.[video]'), so no video is marked")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return save_small_student(tmp_path / "run")


def write_pictures(folder: Path, count: int, size: tuple[int, int] = (64, 48)) -> list[NDArray[np.uint8]]:
    folder.mkdir(parents=True)
    pictures = [paint_frame(seed, *size)[0] for seed in range(count)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:04d}.png")
    return pictures


def write_video(path: Path, pictures: Iterable[NDArray[np.uint8]], rate: int = 10) -> Path:
    """Write a lossless RGB video, holding one picture at a time."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=rate)
        stream.pix_fmt = "bgr0"
        for number, picture in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = picture.shape[:2]
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def read_video(path: Path, kind: str) -> list[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format=kind) for frame in container.decode(video=0)]


def read_lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "polyps.jsonl").read_text().splitlines()]


def test_polyps_of_a_mask_are_listed_with_area_and_box_the_largest_first() -> None:
    mask = np.zeros((10, 12), bool)
    mask[1:3, 1:3] = True
    mask[3, 3] = True  # touches the square at a corner: one polyp of five pixels
    mask[6:9, 5:11] = True
    polyps = list_polyps(mask, np.full(mask.shape, 0.75, np.float32))
    assert [(polyp.area_px, polyp.box) for polyp in polyps] == [(18, (6, 5, 3, 6)), (5, (1, 1, 3, 3))]
    assert polyps[0].mean_prob == 0.75


def test_outline_lies_outside_the_mask_and_leaves_it_untouched() -> None:
    picture, mask = paint_frame(0, 64, 48)
    drawn = draw_outline(picture, mask, (0, 255, 0))
    changed = (drawn != picture).any(axis=2)
    assert not (changed & mask).any() and changed.any()
    assert (draw_outline(picture, np.zeros_like(mask), (0, 255, 0)) == picture).all()


def test_folder_gives_masks_outlines_and_lines_at_original_size(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 3, size=(70, 50))
    done = predict(run, tmp_path / "in", out=tmp_path / "out")
    assert (done.frames, done.problems) == (3, ())
    lines = read_lines(tmp_path / "out")
    assert [line["frame"] for line in lines] == ["0000", "0001", "0002"]
    for line in lines:
        mask = np.asarray(Image.open(tmp_path / "out" / "masks" / f"{line['frame']}.png"))
        assert mask.shape == (line["height"], line["width"]) == (50, 70)
        assert sum(polyp["area_px"] for polyp in line["polyps"]) == mask.sum()
        assert read_image(tmp_path / "out" / "outlines" / f"{line['frame']}.jpg").shape == (50, 70, 3)
    assert "3 frames" in done.render()


def test_no_outlines_writes_none(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    predict(run, tmp_path / "in", out=tmp_path / "out", outlines=False)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["masks", "polyps.jsonl"]


def test_batches_mark_what_single_pictures_mark(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 5)
    predict(run, tmp_path / "in", out=tmp_path / "one")
    predict(run, tmp_path / "in", out=tmp_path / "two", batch_size=2)
    for path in (tmp_path / "one" / "masks").iterdir():
        other = np.asarray(Image.open(tmp_path / "two" / "masks" / path.name))
        assert (np.asarray(Image.open(path)) != other).mean() < 0.01


def test_list_marks_pictures_of_several_folders_under_their_own_names(run: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_pictures(tmp_path / name, 1)
    (tmp_path / "list.txt").write_text("a/0000.png\n\nb/0000.png\n")
    predict(run, tmp_path / "list.txt", out=tmp_path / "out")
    assert [line["frame"] for line in read_lines(tmp_path / "out")] == ["a/0000", "b/0000"]
    assert (tmp_path / "out" / "masks" / "b" / "0000.png").is_file()


def test_two_pictures_of_one_stem_keep_their_suffixes(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 1)
    Image.open(tmp_path / "in" / "0000.png").save(tmp_path / "in" / "0000.bmp")
    predict(run, tmp_path / "in", out=tmp_path / "out")
    assert {line["frame"] for line in read_lines(tmp_path / "out")} == {"0000.bmp", "0000.png"}


def test_files_that_are_no_pictures_are_named_and_the_others_marked(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 2)
    (tmp_path / "in" / "notes.txt").write_text("left colon")
    (tmp_path / "in" / "zz.jpg").write_bytes(b"not a picture")
    done = predict(run, tmp_path / "in", out=tmp_path / "out")
    assert done.frames == 2
    assert len(done.problems) == 2
    assert "zz.jpg" in done.problems[0] and "1 files are no pictures: notes.txt" in done.problems[1]
    assert done.render().count("not done:") == 2


def test_lossless_video_gets_the_masks_of_its_single_frames_at_its_rate(run: Path, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "in", 12, size=(63, 47))  # odd sides stay odd
    write_video(tmp_path / "clip.mkv", pictures, rate=10)
    predict(run, tmp_path / "in", out=tmp_path / "single")
    done = predict(run, tmp_path / "clip.mkv", out=tmp_path / "video")
    assert (done.frames, done.problems) == (12, ())
    masks = read_video(tmp_path / "video" / "masks.mkv", "gray")
    for number, mask in enumerate(masks):
        single = np.asarray(Image.open(tmp_path / "single" / "masks" / f"{number:04d}.png"))
        np.testing.assert_array_equal(mask, single * np.uint8(255))
    assert 0 < np.mean(masks) < 255
    lines, single_lines = read_lines(tmp_path / "video"), read_lines(tmp_path / "single")
    assert [line["polyps"] for line in lines] == [line["polyps"] for line in single_lines]
    assert [line["time_s"] for line in lines] == pytest.approx([number / 10 for number in range(12)])
    with av.open(str(tmp_path / "video" / "outlines.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.frames, stream.average_rate) == (63, 47, 12, 10)


def test_video_that_ends_early_is_marked_so_far_and_says_so(run: Path, tmp_path: Path) -> None:
    pictures = [paint_frame(seed, 64, 48)[0] for seed in range(40)]
    whole = write_video(tmp_path / "clip.avi", pictures).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) // 2])
    done = predict(run, tmp_path / "cut.avi", out=tmp_path / "out")
    assert 5 < done.frames < 35
    assert len(read_lines(tmp_path / "out")) == done.frames
    assert len(done.problems) == 1
    assert f"ends early, after {done.frames} of about 40 frames" in done.problems[0]


def test_a_turned_video_of_wide_pixels_is_marked_upright_and_square(run: Path, tmp_path: Path) -> None:
    source = write_corners(tmp_path / "a.mp4", [paint_corners()] * 4, sides=Fraction(4, 3))
    done = predict(run, turn_video(source, "90"), out=tmp_path / "out")
    assert done.frames == 4 and {(line["width"], line["height"]) for line in read_lines(tmp_path / "out")} == {(48, 85)}
    masks = read_video(tmp_path / "out" / "masks.mkv", "gray")
    assert {mask.shape for mask in masks} == {(85, 48)} and set(np.unique(masks)) <= {0, 255}
    outlines = read_video(tmp_path / "out" / "outlines.mp4", "rgb24")
    assert name_corners(outlines[0]) == "br.g"
    with av.open(str(tmp_path / "out" / "outlines.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 0, 1)


def test_marks_come_at_the_times_of_their_frames(run: Path, tmp_path: Path) -> None:
    times = [0, 40, 47, 55, 480, 2600]
    source = write_corners(tmp_path / "a.mkv", [paint_corners()] * 6, codec="ffv1", pixels="bgr0", times_ms=times)
    predict(run, source, out=tmp_path / "out")
    for name in ("masks.mkv", "outlines.mp4"):
        with av.open(str(tmp_path / "out" / name)) as container:
            assert [round(frame.time * 1000) for frame in container.decode(video=0)] == times, name
    assert [round(line["time_s"] * 1000) for line in read_lines(tmp_path / "out")] == times


def test_a_video_whose_size_changes_is_refused_and_nothing_is_left(run: Path, tmp_path: Path) -> None:
    parts = [
        write_corners(tmp_path / f"{width}.ts", [paint_corners(48, width)] * 6, codec="mpeg2video", pixels="yuv420p")
        for width in (64, 96)
    ]
    (tmp_path / "a.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(DataError, match=r"a\.ts: frame [45] has 96 x 48 px, those before it have 64 x 48"):
        predict(run, tmp_path / "a.ts", out=tmp_path / "out")
    assert not list((tmp_path / "out").glob("*"))


def test_a_picture_over_the_limit_is_named_and_the_others_are_marked(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "in", 2)
    Image.new("RGB", (80, 60)).save(tmp_path / "in" / "large.png")
    done = predict(run, tmp_path / "in", out=tmp_path / "out", max_pixels=4000)
    assert done.frames == 2 and "the limit is 4000" in done.problems[0] and "--max-pixels 4800" in done.problems[0]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing", None, "found nothing there"),
        ("clip.mp4", b"no video at all", "expected a video"),
        ("list.txt", b"gone.png\n", "1 of 1 files are not there"),
        ("data.bin", b"\xff\xfe\x00", "expected a folder"),
        ("bad.png", b"no picture", "none of 1 pictures can be read"),
    ],
)
def test_sources_that_cannot_be_marked_are_one_clear_line(
    run: Path, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        predict(run, tmp_path / name, out=tmp_path / "out")
    assert "\n" not in str(caught.value) and name in str(caught.value)


def test_empty_folder_is_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    with pytest.raises(DataError, match="found 0 other files"):
        predict(run, tmp_path / "in", out=tmp_path / "out")


@pytest.mark.slow
def test_memory_stays_bounded_over_300_real_frames_and_masks_equal_single_frames(run: Path, tmp_path: Path) -> None:
    benchmark = os.environ.get("DIFOM_BENCHMARK")
    if not benchmark:
        pytest.skip("DIFOM_BENCHMARK is not set: no real frames to make a video of")
    paths = sorted((Path(benchmark) / "TestDataset" / "CVC-ColonDB" / "images").iterdir())[:300]
    (tmp_path / "list.txt").write_text("\n".join(str(path) for path in paths))
    write_video(tmp_path / "long.mkv", map(read_image, paths))
    write_video(tmp_path / "short.mkv", map(read_image, paths[:60]))
    predict(run, tmp_path / "short.mkv", out=tmp_path / "short")
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    predict(run, tmp_path / "long.mkv", out=tmp_path / "video")
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib
    assert grown_kib < 60 * 1024  # 240 more frames would be 200 MiB
    predict(run, tmp_path / "list.txt", out=tmp_path / "single", outlines=False)
    for path, mask in zip(paths, read_video(tmp_path / "video" / "masks.mkv", "gray"), strict=True):
        single = np.asarray(Image.open(tmp_path / "single" / "masks" / f"{path.stem}.png"))
        np.testing.assert_array_equal(mask, single * np.uint8(255))


def test_a_list_that_climbs_writes_below_out_and_leaves_its_pictures_alone(run: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "data"
    write_pictures(pictures, 2)
    write_pictures(tmp_path / "lists" / "x", 1)
    (tmp_path / "lists" / "x" / "all.txt").write_text("../../data/0000.png\n../../data/./0001.png\n0000.png\n")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    done = predict(run, tmp_path / "lists" / "x" / "all.txt", out=tmp_path / "lists" / "x" / "deep" / "out")
    written = sorted(path.relative_to(done.folder).as_posix() for path in (done.folder / "masks").rglob("*.png"))
    assert written == ["masks/data/0000.png", "masks/data/0001.png", "masks/lists/x/0000.png"]
    assert {path: path.read_bytes() for path in before} == before
    assert {path for path in tmp_path.rglob("*.png") if done.folder not in path.parents} == set(before)


def test_a_picture_named_twice_is_marked_once(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "data", 1)
    (tmp_path / "all.txt").write_text("data/0000.png\ndata/../data/0000.png\n")
    assert predict(run, tmp_path / "all.txt", out=tmp_path / "out").frames == 1


def test_an_output_is_never_an_input_by_name_by_link_or_by_hard_link(run: Path, tmp_path: Path) -> None:
    masks = tmp_path / "set" / "masks"
    write_pictures(masks, 1)
    before = (masks / "0000.png").read_bytes()
    with pytest.raises(SettingsError, match=r"masks/0000\.png is an input .*never written"):
        predict(run, masks, out=tmp_path / "set")
    (tmp_path / "hard" / "masks").mkdir(parents=True)
    os.link(masks / "0000.png", tmp_path / "hard" / "masks" / "0000.png")
    with pytest.raises(SettingsError, match="is an input"):
        predict(run, masks, out=tmp_path / "hard")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "masks").symlink_to(masks)
    with pytest.raises(SettingsError, match="outside"):
        predict(run, masks, out=tmp_path / "linked")
    assert (masks / "0000.png").read_bytes() == before and sorted(masks.iterdir()) == [masks / "0000.png"]


def test_pictures_that_lie_at_out_are_replaced_with_force_alone(run: Path, tmp_path: Path) -> None:
    write_pictures(tmp_path / "set" / "images", 2)
    truth = tmp_path / "set" / "masks" / "0001.png"
    truth.parent.mkdir()
    Image.new("1", (8, 8), 1).save(truth)
    before = truth.read_bytes()
    with pytest.raises(SettingsError, match=r"masks/0001\.png exist; choose another --out, or .* --force"):
        predict(run, tmp_path / "set" / "images", out=tmp_path / "set")
    assert truth.read_bytes() == before
    assert {path.name for path in (tmp_path / "set").iterdir()} == {"images", "masks"}
    assert predict(run, tmp_path / "set" / "images", out=tmp_path / "set", force=True).frames == 2
    assert truth.read_bytes() != before
    with pytest.raises(SettingsError, match=r"0000\.png and 4 more exist"):
        predict(run, tmp_path / "set" / "images", out=tmp_path / "set")


def test_two_inputs_never_share_an_output(run: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_pictures(data, 1)
    picture = Image.open(data / "0000.png")
    with picture:
        picture.save(data / "0000.jpg")
        picture.save(data / "0000.jpg.bmp")  # its stem is the other's whole name
    predict(run, data, out=tmp_path / "out")
    written = sorted(path.name for path in (tmp_path / "out" / "masks").iterdir())
    assert written == ["0000.jpg.bmp.png", "0000.jpg.png", "0000.png.png"]


@pytest.mark.parametrize("place", ["file", "file/below", "nowhere", "nowhere/below"])
def test_an_out_that_is_no_folder_is_refused_before_anything_is_done(run: Path, tmp_path: Path, place: str) -> None:
    write_pictures(tmp_path / "data", 1)
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingsError, match=r"--out.* (is a file|link to nothing)"):
        predict(run, tmp_path / "data", out=tmp_path / place)
    assert sorted(tmp_path.rglob("*")) == before


def test_boxes_are_those_of_coco(run: Path, tmp_path: Path) -> None:
    mask_api = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed: nothing to compare with")
    write_pictures(tmp_path / "data", 2, size=(70, 58))
    done = predict(run, tmp_path / "data", out=tmp_path / "out")
    compared = 0
    for line in read_lines(done.folder):
        mask = np.array(Image.open(done.folder / "masks" / f"{line['frame']}.png"))
        labels, count = scipy.ndimage.label(mask, np.ones((3, 3)))
        areas = [np.asfortranarray(labels == number, np.uint8) for number in range(1, count + 1)]
        wanted = sorted(
            [*map(int, area.sum(keepdims=True).ravel()), *mask_api.toBbox(mask_api.encode(area))] for area in areas
        )
        assert sorted([polyp["area_px"], *polyp["bbox"]] for polyp in line["polyps"]) == wanted
        compared += count
    assert compared > 0
