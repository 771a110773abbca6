"""Every draw shows a view of its own, of the numbers that it was drawn with, made from view 0 or from the file."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from difom_cache import ViewParams, replay_image, replay_mask
from difom_cache.store import TapSpec
from difom_cache.views import locate_fresh
from difom_train.config import DataConfig
from difom_train.data import (
    PICTURES,
    DataTimer,
    Feed,
    JointCache,
    Loader,
    choose_stage,
    count_before,
    draw_fresh,
    select_rows,
    show_fresh,
)

TAP = TapSpec("a/x@16", "feature", 4, 2, 16, "float16")
CPU = torch.device("cpu")
SIDE, WIDTH, HEIGHT = 96, 320, 240
WHOLE = ViewParams(top=0, left=0, height=HEIGHT, width=WIDTH)


def test_draws_of_one_record_are_numbered_in_order():
    assert count_before(np.array([7, 3, 7, 7, 3, 9], np.uint64)).tolist() == [0, 0, 1, 2, 1, 0]


def test_a_record_that_is_drawn_again_shows_another_view_and_no_other_record_changes_it(make_cache):
    cache = JointCache([make_cache(records=10, views=1, picture_px=32)])
    drawn = draw_fresh(cache, np.array([0, 1, 0, 0, 1, 2]), seed=3, epoch=5)
    assert len({tuple(view.to_row()) for view, _ in drawn}) == 6 and {size for _, size in drawn} == {(32, 32)}
    assert draw_fresh(cache, np.array([4, 1, 0, 0, 0, 1]), seed=3, epoch=5)[1:] == [drawn[at] for at in (1, 0, 2, 3, 4)]
    assert draw_fresh(cache, np.array([0]), seed=3, epoch=6)[0] != drawn[0]
    assert draw_fresh(cache, np.array([0]), seed=4, epoch=5)[0] != drawn[0]


@pytest.mark.parametrize(("batch", "labels", "accumulate"), [(1, 1.0, 1), (1, 1.0, 2), (2, 0.5, 1), (3, 1.0, 1)])
def test_features_teach_every_place_of_a_batch_in_one_step_or_the_next(make_cache, batch, labels, accumulate):
    """A fresh view has no features to compare: with one picture a batch none was ever compared."""
    cache = JointCache([make_cache(records=30, views=2, taps={TAP.name: TAP})])
    options = DataConfig(batch_size=batch, accumulate=accumulate, labels=labels, labelled_min_frac=0.5)
    selection = select_rows(cache, options, seed=0, usable=np.ones(len(cache), bool))
    groups = [PICTURES, TAP.name]
    stage = choose_stage("disk", cache, used=selection.train, groups=groups, device=CPU)
    feed = Feed(cache, Loader(stage, batch, CPU), selection, options, seed=0)
    batches = feed.train_batches(0, [TAP.name], distils=True, timer=DataTimer())
    shown = np.array([[view is None for view in each.fresh] for each in batches]).reshape(-1, accumulate, batch)
    assert (shown[0::2][: len(shown) // 2] != shown[1::2]).all()


def test_a_view_of_the_stored_view_0_is_the_view_of_the_file():
    """Against replay of the source: the same mask but for its rim, the same picture but for its finest detail."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    polyp = torch.from_numpy((np.hypot((y - 100) / 1.3, x - 150) < 50).astype(np.uint8))
    coarse = torch.rand((1, 3, 9, 12), generator=torch.Generator().manual_seed(0))
    source = (functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[0].clamp(0, 1) * 255).round().byte()
    whole = (replay_image(source, WHOLE, SIDE) * 255).round().byte().permute(1, 2, 0)
    stored = {"image": whole.expand(8, -1, -1, -1), "mask": replay_mask(polyp, WHOLE, SIDE).expand(8, -1, -1)}
    views = [
        ViewParams(10 + place, 20, 200, 260, flip_h=place % 2, quarter_turns=place % 4, angle_mdeg=3000 * place)
        for place in range(7)
    ]
    shown = show_fresh(stored, locate_fresh([*((view, (WIDTH, HEIGHT)) for view in views), None]))
    for place, view in enumerate(views):
        wanted = (replay_image(source, view, SIDE) * 255).permute(1, 2, 0)
        assert (shown["image"][place].float() - wanted).abs()[2:-2, 2:-2].mean() < 2.5
        truth, found = replay_mask(polyp, view, SIDE) > 0, shown["mask"][place] > 0
        assert 2 * (truth & found).sum() / (truth.sum() + found.sum()) > 0.98
    assert torch.equal(shown["image"][7], whole) and torch.equal(shown["mask"][7], stored["mask"][7])


def test_an_absent_mask_stays_without_a_shape():
    stored = {
        "image": torch.zeros(1, 8, 8, 3, dtype=torch.uint8),
        "mask": torch.full((1, 8, 8), 255, dtype=torch.uint8),
    }
    shown = show_fresh(stored, locate_fresh([(ViewParams(0, 0, 6, 6), (8, 8))]))
    assert set(shown["mask"].unique().tolist()) <= {0, 1} and shown["image"].dtype == torch.uint8
