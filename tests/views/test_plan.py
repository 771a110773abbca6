import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from difom_cache import Record
from difom_cache.errors import CacheFormatError, SettingsError
from difom_cache.views import ViewPlan, draw_plan


def record(name: str, split: str = "train", width: int = 622, height: int = 531) -> Record:
    return Record(f"Kvasir/{name}", "Kvasir", split, Path(f"{name}.png"), None, width, height, "00", "", "")


def test_train_records_get_all_views_and_others_view_0():
    plan = draw_plan([record("a"), record("b", "val"), record("c")], views=3, seed=0)
    assert plan.record.tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert plan.view.tolist() == [0, 1, 2, 0, 0, 1, 2]
    assert plan.params.shape == (7, 13) and plan.params.dtype == np.int32
    assert plan[3].to_row().tolist() == [0, 0, 531, 622] + [0] * 9


def test_another_record_changes_no_records_views():
    few = draw_plan([record("a"), record("c")], views=4, seed=3)
    more = draw_plan([record("z"), record("a"), record("b"), record("c")], views=4, seed=3)
    assert np.array_equal(few.params[:4], more.params[4:8]) and np.array_equal(few.params[4:], more.params[12:])


def test_more_views_keep_the_first_ones():
    few, more = (draw_plan([record("a")], views=views, seed=3) for views in (4, 9))
    assert np.array_equal(few.params, more.params[:4])


def test_equal_arguments_give_equal_digests_and_every_argument_counts():
    digests = {
        draw_plan([record("a"), record(second)], views=views, seed=seed, policy=policy).digest()
        for second, views, seed, policy in [
            ("b", 3, 0, "default"),
            ("c", 3, 0, "default"),
            ("b", 4, 0, "default"),
            ("b", 3, 1, "default"),
            ("b", 3, 0, "flips"),
        ]
    }
    assert len(digests) == 5
    assert draw_plan([record("a"), record("b")], views=3, seed=0).digest() in digests


def test_a_plan_read_back_has_its_digest():
    plan = draw_plan([record("a"), record("b")], views=3, seed=0)
    read = ViewPlan.from_rows(
        plan.record.astype(np.int64), plan.view.astype(">i4"), plan.params.copy(), policy="default", seed=0
    )
    assert read.digest() == plan.digest()
    assert read[4] == plan[4]


def test_digest_is_the_one_that_the_format_describes():
    plan = draw_plan([record("a")], views=1, seed=9, policy="flips")
    head = (
        '{"columns": ["top", "left", "height", "width", "flip_h", "flip_v", "quarter_turns", "angle_mdeg", "pad", '
        '"brightness_permille", "contrast_permille", "saturation_permille", "hue_permille"], "policy": "flips", '
        '"replay": 1, "rows": 1, "seed": 9}'
    )
    tables = struct.pack("<15i", 0, 0, 0, 0, 531, 622, *[0] * 9)  # record, view, params
    assert plan.digest() == hashlib.sha256(head.encode() + tables).hexdigest()


def test_digest_sees_a_single_number():
    plan = draw_plan([record("a")], views=2, seed=0)
    params = plan.params.copy()
    params[1, 7] += 1
    moved = ViewPlan.from_rows(plan.record, plan.view, params, policy="default", seed=0)
    assert moved.digest() != plan.digest()


def test_tables_that_do_not_fit_are_refused():
    plan = draw_plan([record("a")], views=2, seed=0)
    with pytest.raises(CacheFormatError, match=r"params \(2, 13\), found \(2,\), \(2,\) and \(2, 12\)"):
        ViewPlan.from_rows(plan.record, plan.view, plan.params[:, :12], policy="default", seed=0)


def test_a_plan_knows_whether_it_pads():
    records = [record(str(i)) for i in range(9)]
    assert draw_plan(records, views=3, seed=0).wholly_valid
    assert not draw_plan(records, views=3, seed=0, policy="pad").wholly_valid


def test_no_views_and_no_records():
    with pytest.raises(SettingsError, match="at least 1 view"):
        draw_plan([record("a")], views=0, seed=0)
    assert len(draw_plan([], views=3, seed=0)) == 0


def test_more_views_than_rows_can_be_numbered_are_refused_at_once():
    with pytest.raises(
        SettingsError, match=r"2147483648 views of 1 training records are more than the 2147483647 rows"
    ):
        draw_plan([record("a")], views=2**31, seed=0)
