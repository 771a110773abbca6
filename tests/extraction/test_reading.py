"""A cache says by which rule its images were read, where a rule changed them; two rules never meet in one."""

import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from difom_cache import extract, load_records, open_cache, read_image, write_manifest
from difom_cache.data import DataSource
from difom_cache.errors import CacheIdentityError, ManifestError
from difom_cache.store import canonical
from difom_train.data import JointCache, SourcePictures

SMALL = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 1, "quiet": True}


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def say_bits(path: Path, bits: int) -> None:
    """Put the chunk into a grey PNG that says of how many bits its levels are."""
    chunk = b"sBIT" + bytes([bits])
    content = path.read_bytes()
    crc = struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + struct.pack(">I", 1) + chunk + crc + content[33:])


def paint(root: Path, *, bits: int | None) -> Path:
    """Write four pictures of 12 bits in 16, which say so where `bits` is given, with masks."""
    rng = np.random.default_rng(0)
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    for number in range(4):
        Image.fromarray(rng.integers(0, 4096, (40, 40), np.uint16)).save(root / "images" / f"{number}.png")
        if bits:
            say_bits(root / "images" / f"{number}.png", bits)
        Image.fromarray(np.eye(40) > 0).save(root / "masks" / f"{number}.png")
    return root


def forget_reading(cache: Path) -> None:
    """Make a cache the one that an older version would have made: its identity says nothing of rules."""
    path = cache / "identity.json"
    held = json.loads(path.read_text())
    assert held.pop("reading") == 2
    path.write_bytes(canonical(held))


def test_a_cache_of_images_that_every_rule_reads_alike_says_nothing_of_rules(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", bits=None)
    with pytest.warns(match="--bits 12"):
        extract(data=data, cache=tmp_path / "feats", **SMALL)
    assert "reading" not in json.loads((tmp_path / "feats" / "identity.json").read_text())


def test_a_cache_of_another_rule_is_not_continued_and_both_are_named(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", bits=12)
    extract(data=data, cache=tmp_path / "feats", **SMALL)
    assert open_cache(tmp_path / "feats").identity.reading == 2
    extract(data=data, cache=tmp_path / "feats", **SMALL)
    forget_reading(tmp_path / "feats")
    with pytest.raises(
        CacheIdentityError, match=r"rule 1 \(.*16-bit levels as they are\).*rule 2 \(.*bits that their file"
    ):
        extract(data=data, cache=tmp_path / "feats", **SMALL)


def test_a_finished_cache_of_an_older_rule_is_read_from_but_not_rendered_beside(tmp_path: Path) -> None:
    data = paint(tmp_path / "data", bits=12)
    extract(data=data, cache=tmp_path / "feats", **SMALL)
    forget_reading(tmp_path / "feats")
    opened = open_cache(tmp_path / "feats")
    assert opened.finished_rows().all() and opened.gather([0])["image"].shape == (1, 64, 64, 3)
    with pytest.raises(CacheIdentityError, match=r"rule 1 .*rule 2"):
        SourcePictures(JointCache([opened]), DataSource(data))


def test_a_manifest_of_video_frames_of_an_older_rule_names_both(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed (pip install '.[video]'), so no video is read")
    from painted_videos import paint_corners, turn_video, write_video

    path = write_video(tmp_path / "a.mp4", [paint_corners()] * 3)
    stored = load_records(path)
    turn_video(path, "180")
    (record,) = load_records(path)
    assert (read_image(record.image)[::-1, ::-1] != 0).any() and record.image_sha256 != stored[0].image_sha256
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    write_manifest(stored, tmp_path / "m.csv")  # as an older version digests the frames: as they are stored
    with pytest.raises(ManifestError, match=r"changed since .*an older difom read videos as they are stored"):
        load_records(tmp_path / "m.csv")
    write_manifest([record], tmp_path / "new.csv")
    assert load_records(tmp_path / "new.csv") == [record]
    assert load_records(tmp_path / "new.csv")[0].reading == 2
