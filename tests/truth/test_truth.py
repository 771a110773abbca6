"""What people bring is read as it is, or refused with the reason: never wrong in silence."""

from pathlib import Path

import pytest
from truth_case import Case, Refused, judge
from truth_table import every_case


@pytest.mark.parametrize("case", every_case(), ids=lambda case: case.name)
def test_read_right_or_refused_with_the_reason(case: Case, tmp_path: Path):
    verdict = judge(case, tmp_path)
    assert verdict.ok, f"read: {verdict.read}; right: {case.right!r}"


def test_names_of_cases_are_unique():
    names = [case.name for case in every_case()]
    assert len(set(names)) == len(names)


def test_the_judge_sees_a_wrong_reading_and_a_silent_one(tmp_path: Path):
    assert not judge(Case("x", lambda folder: 3, 4), tmp_path / "1").ok
    assert not judge(Case("x", lambda folder: 3, Refused()), tmp_path / "2").ok
