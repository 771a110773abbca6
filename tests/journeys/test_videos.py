"""What a hospital has most of: two videos become a cache, and a student learns from their frames without a mask of theirs."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from painted_folder import paint_folder
from PIL import Image

from difom_cache import extract, open_cache
from difom_train import train

av = pytest.importorskip("av", reason="PyAV is not installed (pip install '.[video]'), so no video is read")
SETTINGS = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 2, "quiet": True}
FRAMES, SIZE = 300, (384, 288)


def write_video(path: Path, pictures: Sequence[Path], rate: int = 25) -> Path:
    """Write picture files as H.264 with B frames, as recorders do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for picture in pictures:
            rgb = np.asarray(Image.open(picture).convert("RGB").resize(SIZE))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.slow
def test_two_videos_of_real_frames_are_extracted_and_trained_on_without_masks(tmp_path: Path) -> None:
    if "DIFOM_BENCHMARK" not in os.environ:
        pytest.skip("DIFOM_BENCHMARK is not set: no real frames to make videos of")
    benchmark = Path(os.environ["DIFOM_BENCHMARK"])
    real = {
        "colon": sorted(
            (benchmark / "TestDataset" / "CVC-ColonDB" / "images").iterdir(), key=lambda path: int(path.stem)
        ),
        "kvasir": sorted((benchmark / "TrainDataset" / "image").iterdir())[-FRAMES:],
    }
    for name, pictures in real.items():
        write_video(tmp_path / "ward" / f"{name}.mp4", pictures[:FRAMES])
    before = {path.name: path.read_bytes() for path in (tmp_path / "ward").iterdir()}

    report = extract(data=tmp_path / "ward", every="40ms", cache=tmp_path / "new", **SETTINGS)
    cache = open_cache(tmp_path / "new")
    lines = cache.table.records
    assert report.complete and {line["group"] for line in lines} == {"ward/colon", "ward/kvasir"}
    assert {(line["split"], line["labelled"], line["dataset"]) for line in lines} == {("train", "0", "ward")}
    taken = {name: sum(line["group"] == f"ward/{name}" for line in lines) for name in real}
    assert taken["kvasir"] >= 0.97 * FRAMES  # stills of as many patients
    assert 30 < taken["colon"] < FRAMES  # a few sequences, whose frames nearly repeat each other
    assert {path.name: path.read_bytes() for path in (tmp_path / "ward").iterdir()} == before

    extract(data=tmp_path / "ward", every="40ms", cache=tmp_path / "again", **SETTINGS)
    assert open_cache(tmp_path / "again").content_digests() == cache.content_digests()

    extract(data=paint_folder(tmp_path / "masked", 40), cache=tmp_path / "old", **SETTINGS)
    run = tmp_path / "run"
    train(
        student="unet",
        width=4,
        cache=[tmp_path / "old", tmp_path / "new"],
        input_size=64,
        epochs=1,
        batch_size=16,
        out=run,
        device="cpu",
        logger="none",
    )
    said = (run / "run.json").read_text()
    assert f'"unlabelled_records": {sum(taken.values())}' in said
    assert "masked: groups unknown: every frame its own" in said
