"""An epoch visits every train record once, whatever the number of processes."""

import numpy as np
import pytest

from difom_cache.errors import SettingsError
from difom_train.data import Shape, build_pool, choose_labelled, count_steps, draw_epoch, draw_rows, find_share, keys_of


def pool_of(records, views, first_row=0, **options):
    """Return a pool of `records` with `views` rows each, and the record of each row."""
    record = np.repeat(np.arange(records), views)
    key = keys_of(f"set{first_row}/{each}" for each in range(records))[record]
    view = np.tile(np.arange(views, dtype=np.int32), records)
    key, view = (
        np.concatenate([np.zeros(first_row, np.uint64), key]),
        np.concatenate([np.zeros(first_row, np.int32), view]),
    )
    return build_pool(np.arange(len(record)) + first_row, key, view, **options)


def test_every_record_comes_once_an_epoch():
    rows = draw_rows(pool_of(50, 4), 50, seed=0, epoch=3)
    assert sorted(rows // 4) == list(range(50))


def test_every_view_comes_up_over_the_epochs():
    pool = pool_of(20, 4)
    drawn = np.concatenate([draw_rows(pool, 20, seed=0, epoch=epoch) for epoch in range(60)])
    assert np.bincount(drawn % 4) == pytest.approx([300] * 4, rel=0.2)
    assert len(np.unique(drawn)) == 80


def test_epochs_and_seeds_draw_other_orders_and_the_same_ones_again():
    pool = pool_of(20, 4)
    first = draw_rows(pool, 20, seed=0, epoch=0)
    assert (draw_rows(pool, 20, seed=0, epoch=0) == first).all()
    assert (draw_rows(pool, 20, seed=0, epoch=1) != first).any()
    assert (draw_rows(pool, 20, seed=1, epoch=0) != first).any()


def test_another_record_changes_no_records_view():
    def views(records):
        rows = draw_rows(pool_of(records, 4), records, seed=0, epoch=0)
        return {row // 4: row % 4 for row in rows.tolist()}

    few, more = views(20), views(21)
    assert all(more[record] == view for record, view in few.items())


def test_all_views_are_visited_where_asked():
    rows = draw_rows(pool_of(10, 3, all_views=True), 30, seed=0, epoch=0)
    assert sorted(rows) == list(range(30))


def test_two_processes_see_what_two_accumulated_passes_see():
    labelled, none = pool_of(21, 2), pool_of(0, 1)
    shape = Shape(batch=4, micro=2)
    table = draw_epoch(labelled, none, steps=count_steps(21, shape), share=1.0, shape=shape, seed=0, epoch=0)
    assert table.shape == (3, 2, 4)
    assert set(table.ravel() // 2) == set(range(21))  # the last step is topped up with other views


def test_every_batch_has_its_share_of_labelled_rows():
    labelled, unlabelled = pool_of(10, 1), pool_of(90, 1, first_row=10)
    shape = Shape(batch=16, micro=1)
    steps = count_steps(100, shape)
    table = draw_epoch(labelled, unlabelled, steps=steps, share=0.1, shape=shape, seed=0, epoch=0)
    with_mask = (table < 10).sum(-1).ravel()
    assert set(with_mask) == {1, 2}
    assert set(table.ravel()) == set(range(100))
    assert (np.diff((table < 10).astype(int), axis=-1) <= 0).all(), "labelled rows come first"


def test_scarce_masks_fill_at_least_their_share():
    assert find_share(10, 90, 0.5) == 0.5
    assert find_share(80, 20, 0.5) == 0.8
    assert find_share(10, 0, 0.5) == 1.0
    assert find_share(0, 10, 0.5) == 0.0


def test_labels_are_kept_by_whole_groups():
    groups = [f"seq{each // 5}" for each in range(100)]
    labelled = np.ones(100, bool)
    kept = choose_labelled(groups, labelled, frac=0.2, seed=0)
    assert kept.sum() == 20
    assert all(len(set(kept[start : start + 5])) == 1 for start in range(0, 100, 5))
    assert (choose_labelled(groups, labelled, frac=0.2, seed=1) != kept).any()


def test_frames_without_a_mask_are_never_chosen():
    labelled = np.arange(40) % 2 == 0
    kept = choose_labelled([str(each) for each in range(40)], labelled, frac=0.5, seed=0)
    assert kept.sum() == 10 and not (kept & ~labelled).any()


def test_share_smaller_than_any_group_is_refused():
    with pytest.raises(SettingsError, match="the smallest group has 50"):
        choose_labelled(["a"] * 50 + ["b"] * 50, np.ones(100, bool), frac=0.1, seed=0)
