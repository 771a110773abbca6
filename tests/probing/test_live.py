"""A probe as a network of its own: what it says of an image is what the cache holds of that image."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_folder import paint_folder

from difom_cache import ViewParams, copy, extract, load_probe, load_records, open_cache, probe, read_image, replay_image
from difom_cache.errors import CacheFormatError, CacheIdentityError, CacheIncompleteError


@pytest.fixture(scope="module", params=["int8", "packed"])
def painted(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Path:
    root = paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=16, unlabelled=4)
    extract(
        teacher="dinov2:tiny@56",
        weights="random",
        codec=request.param,
        input_size=64,
        views=1,
        data=root,
        unlabelled=True,
        cache=root / "feats",
        quiet=True,
    )
    probe(root / "feats", teachers="dinov2", head="linear", name="p", folds=2, quiet=True)
    return root


def test_its_logits_of_an_image_are_those_of_the_caches_rows_in_no_fold(painted: Path) -> None:
    cache, live = open_cache(painted / "feats"), load_probe(painted / "feats", "p", device="cpu")
    assert (live.input_px, live.masks, live.is_random) == (56, cache.seen_masks("p"), True)
    images = {record.id: record.image for record in load_records(painted, unlabelled=True)}
    rows = np.flatnonzero(cache.table.labelled == 0)
    tap = next(tap for tap in cache.taps if tap.startswith("p/"))
    stored = cache.gather(rows, [tap], pictures=False)[f"{tap}/code"].astype(np.float32)
    assert len(rows) == 4 and stored.std() > 0.1
    for row, wanted in zip(rows, stored, strict=True):
        pixels = torch.from_numpy(read_image(images[cache.table.ids[cache.table.record[row]]]).copy()).permute(2, 0, 1)
        whole = ViewParams(top=0, left=0, height=pixels.shape[1], width=pixels.shape[2])
        found = live.logits(replay_image(pixels, whole, 56)[None])
        assert found.shape == (1, 1, *wanted.shape[1:])
        np.testing.assert_allclose(found[0].numpy(), wanted, atol=2e-2)


def test_what_cannot_be_built_is_said_in_one_line(painted: Path, tmp_path: Path) -> None:
    feats = Path(shutil.copytree(painted / "feats", tmp_path / "feats"))
    with pytest.raises(CacheFormatError, match="dinov2-tiny-random is no probe; its probes: p"):
        load_probe(feats, "dinov2-tiny-random")
    copy(feats, tmp_path / "alone", taps=["p/logits@16"])
    with pytest.raises(CacheIncompleteError, match="which it reads, is not in this cache; run `difom-cache probe`"):
        load_probe(tmp_path / "alone", "p")
    identity = feats / "teachers" / "dinov2-tiny-random" / "identity.json"
    text = identity.read_text()
    digest = open_cache(feats).teachers["dinov2-tiny-random"].teacher.weights_digest
    identity.write_text(text.replace(digest, "0" * 64))
    with pytest.raises(CacheIdentityError, match=r"is not the one whose features it holds \(another weights_digest\)"):
        load_probe(feats, "p")
    identity.write_text(text)
    (feats / "teachers" / "p" / "heads.safetensors").unlink()
    with pytest.raises(CacheIncompleteError, match="its heads are not fitted yet"):
        load_probe(feats, "p")
