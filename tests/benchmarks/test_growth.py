"""What grows with the number of records is timed on caches that are complete, step by step."""

import json
from pathlib import Path

import pytest

from benchmarks.growth import Growth, bench_growth
from benchmarks.options import GrowthConfig
from difom_cache import extract, info, load_records
from difom_cache.base.errors import SettingsError
from difom_cache.views import draw_plan


def test_every_step_is_timed_on_a_cache_that_extract_takes_for_complete(tmp_path: Path) -> None:
    found = bench_growth(GrowthConfig(folder=tmp_path, records=(4, 24)))
    assert list(found.cpu_s) == ["extract, all there", "open", "info", "folder as --data"]
    assert all(len(seconds) == 2 and min(seconds) >= 0 for seconds in found.cpu_s.values())
    records = load_records(tmp_path / "24" / "records.csv")
    assert len(records) == 24 == len({record.id for record in records})
    assert found.plan_digests[1] == draw_plan(records, views=1, seed=0).digest()
    report = extract(
        data=tmp_path / "24" / "records.csv",
        cache=tmp_path / "24" / "feats",
        teacher=(),
        views=1,
        input_size=8,
        quiet=True,
    )
    assert not any(report.views.values()) and not any(report.missing_blocks.values())
    assert info(tmp_path / "24" / "feats")["records"] == 24
    assert len(load_records(tmp_path / "24" / "pictures", unlabelled=True)) == 24


def test_the_table_has_a_column_a_number_and_the_exponent_of_the_last_two() -> None:
    found = Growth((10, 1000), {"open": (0.5, 5.0), "folder as --data": (0.25,)}, ("a", "b"))
    assert found.exponents == {"open": pytest.approx(0.5)}
    head, opened, folder = found.render().splitlines()
    assert head.split()[-3:] == ["10", "1,000", "exponent"]
    assert opened.split() == ["open", "0.500", "5.000", "0.50"]
    assert folder.split()[-3:] == ["0.250", "-", "-"]
    assert json.loads(json.dumps(found.as_json()))["plan_digests"] == ["a", "b"]


def test_numbers_that_do_not_rise_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--records: expected rising numbers from 1, found 10, 10"):
        bench_growth(GrowthConfig(folder=tmp_path, records=(10, 10)))
