"""A few cases of each class of the standing attack; `make attack` runs all of them."""

import os
from pathlib import Path

import pytest
from cases import CLASSES, label_of
from ground import Case, judge, try_case
from sound import make_sound

EACH = 4  # cases of a class, spread over it; another choice with DIFOM_ATTACK_START

pytestmark = pytest.mark.journey


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sound(tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("kind", CLASSES)
def test_hostile_things_end_in_one_line_and_harm_nothing(kind: str, sound: Path, tmp_path: Path):
    every = list(CLASSES[kind](sound))
    start = int(os.environ.get("DIFOM_ATTACK_START", "3"))
    chosen = every[start % len(every) :: max(1, len(every) // EACH)][:EACH]
    wrong = [
        f"{case.name}: {verdict.wrong}" for case in chosen if (verdict := try_case(case, sound, tmp_path / "g")).wrong
    ]
    assert not wrong


def test_names_of_cases_are_unique_and_there_are_thousands(sound: Path):
    names = [(case.kind, case.name, case.command) for cases in CLASSES.values() for case in cases(sound)]
    assert len(set(names)) == len(names) >= 2000


@pytest.mark.parametrize(
    ("code", "output", "wrong"),
    [
        (124, "", "waits for more"),
        (-11, "", "signal 11"),
        (1, "Traceback (most recent call last):\nKeyError: 'x'", "a traceback: KeyError"),
        (3, "", "exit code 3"),
        (2, "error: a\nerror: b\n", "2 lines"),
        (2, "", "0 lines"),
        (2, "error: something\n", "does not name thing.json"),
        (2, "error: thing.json: is empty\n", ""),
    ],
)
def test_the_judge_sees_what_is_wrong(code: int, output: str, wrong: str):
    verdict = judge(Case("x", "x", ("difom-cache",), names=("thing.json",)), code, output)
    assert wrong in verdict if wrong else not verdict


def test_what_is_written_elsewhere_is_seen(sound: Path, tmp_path: Path):
    copied = Case("x", "x", ("difom-cache", "copy", "{ground}/feats", "{ground}/copy"), needs=("feats",))
    assert "copy was written" in try_case(copied, sound, tmp_path / "ground").wrong
    dropped = Case("x", "x", ("difom-cache", "drop", "{ground}/feats", "--teacher", label_of(sound)), needs=("feats",))
    assert f"feats/teachers/{label_of(sound)} was lost" in try_case(dropped, sound, tmp_path / "ground").wrong
