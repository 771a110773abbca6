"""Warped maps against encoded ones, on a cache whose logits move with their pictures."""

from pathlib import Path

import numpy as np
import torch
from painted_folder import paint_folder

from difom_cache import Cache, extract, open_cache
from difom_cache.maintenance import recompute


def test_logits_that_are_the_mask_itself_lose_nothing_by_warping(tmp_path: Path, monkeypatch) -> None:
    data = paint_folder(tmp_path / "data", frames=8, width=90, height=70)
    extract(
        teacher="dinov2:tiny@56",
        data=data,
        cache=tmp_path / "feats",
        weights="random",
        input_size=64,
        views=6,
        plan="pad",
        quiet=True,
    )
    cache = open_cache(tmp_path / "feats")
    honest = recompute.compare_warped(cache, views=40, seed=0)
    tap = next(iter(cache.taps))

    def mask_as_logits(cache: Cache, tap: str, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(cache.gather(rows, [])["mask"]).float()[:, None] - 0.5

    monkeypatch.setattr(recompute, "read_target", mask_as_logits)
    monkeypatch.setitem(cache.taps, tap, cache.taps[tap].__class__(tap, "logits", 1, 64, 1.0, "float16"))
    figures = recompute.compare_warped(cache, views=40, seed=0)[tap]
    assert figures["dice_encoded"] == 1.0
    assert figures["dice_warped"] > 0.95 and figures["cosine"] > 0.9
    assert honest[tap]["cosine"] < figures["cosine"]
