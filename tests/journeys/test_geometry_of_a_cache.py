"""What is painted at one place of a frame is found at one place of everything that a cache holds of its views."""

from pathlib import Path

import numpy as np
import pytest
import torch
from landmarks import PLACES, find_centre, paint_disc, paint_smooth_frame
from PIL import Image

from difom_cache import Cache, extract, open_cache

GRID, TAP = 14, "dinov2-tiny-random/block3@16"

pytestmark = pytest.mark.journey


def paint_places(root: Path, *, marked: bool) -> Path:
    """Write a frame and a mask for each of five places; the speckled landmark is in the mask, and in the frame if so asked."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for number, place in enumerate(PLACES):
        frame, disc = paint_smooth_frame(seed=number), paint_disc(place, radius_px=18)
        if marked:
            speckles = torch.randint(0, 2, frame.shape, generator=torch.Generator().manual_seed(number)) * 255
            frame = torch.where(disc.bool(), speckles.byte(), frame)
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(root / "images" / f"{number}.png")
        Image.fromarray(disc.numpy() * 255).save(root / "masks" / f"{number}.png")
    return root


def cache_places(folder: Path, *, marked: bool, plan: str, codec: str) -> Cache:
    """Return a cache of five views of each place; the frames' ids do not depend on the folder, so neither do the views."""
    data, feats = paint_places(folder / "frames", marked=marked), folder / "feats"
    options = {"views": 5, "plan": plan, "codec": codec, "input_size": 16 * GRID, "quiet": True}
    options |= {"taps": (TAP.partition("/")[2],)}
    assert extract(teacher="dinov2:tiny@196", weights="random", data=data, cache=feats, **options).complete
    return open_cache(feats)


@pytest.mark.parametrize(("plan", "codec"), [("default", "int8"), ("pad", "float16")])
def test_a_landmark_is_at_one_place_in_picture_mask_and_stored_map(plan, codec, tmp_path):
    caches = [
        cache_places(tmp_path / name, marked=name == "with", plan=plan, codec=codec) for name in ("without", "with")
    ]
    rows = np.arange(len(caches[0].table.view))
    without, marked = (cache.gather(rows, taps=[TAP]) for cache in caches)
    maps = [
        cache.decode(TAP, batch[f"{TAP}/code"], batch.get(f"{TAP}/scale"))
        for cache, batch in zip(caches, (without, marked), strict=True)
    ]
    assert len(rows) > 2 * len(PLACES)
    for row in rows:
        mask = torch.from_numpy(marked["mask"][row])
        centre = find_centre(mask)
        change = np.abs(marked["image"][row].astype(float) - without["image"][row]).sum(-1) > 60
        assert find_centre(torch.from_numpy(change)) == pytest.approx(centre, abs=1)  # speckles leave holes in the disc
        # The landmark may lie across the border of two cells, so the map's change is taken by its centre of mass.
        apart = torch.from_numpy(np.square(maps[1][row] - maps[0][row]).sum(0))
        assert [16 * place for place in find_centre(apart)] == pytest.approx(centre, abs=8)  # half a cell
