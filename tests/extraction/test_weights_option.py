"""`--weights`: each teacher gets what is said of it, the rest one value, and those that hold their own none."""

from pathlib import Path

import pytest

from difom_cache.errors import SettingsError
from difom_cache.extraction import choose_weights


def test_without_a_word_everything_comes_from_the_hub() -> None:
    assert choose_weights((), ["sam", "onnx:net.onnx"]) == ["hub", "hub"]


def test_a_bare_value_is_for_all_but_those_that_hold_their_own() -> None:
    teachers = ["sam", "dinov2:small@224", "onnx:net.onnx", "student:run"]
    assert choose_weights("random", teachers) == ["random", "random", "hub", "hub"]


def test_what_is_said_of_one_teacher_wins_over_the_bare_value() -> None:
    teachers = ["sam", "dinov2:small@224", "oneformer"]
    given = ["dinov2=./dino", "random", "sam=medsam.pth"]
    assert choose_weights(given, teachers) == ["medsam.pth", "./dino", "random"]


@pytest.mark.parametrize("name", ["sam:vit_h", "sam-vit_h"])
def test_two_sizes_of_a_teacher_are_told_apart(name: str) -> None:
    given = [f"{name}=h.pth", "sam=b.pth"]
    assert choose_weights(given, ["sam", "sam:vit_h"]) == ["b.pth", "h.pth"]


def test_a_run_takes_other_weights_where_they_are_given_for_it() -> None:
    assert choose_weights(["student=random"], ["student:runs/first"]) == ["random"]


def test_a_path_may_hold_an_equals_sign(tmp_path: Path) -> None:
    folder = tmp_path / "lr=0.1"
    folder.mkdir()
    assert choose_weights(str(folder), ["sam"]) == [str(folder)]
    assert choose_weights(f"sam={folder}", ["sam"]) == [str(folder)]


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (["dinov3=x"], "there is no teacher 'dinov3' here; name one of sam, dinov2"),
        (["sam=a", "sam=b"], "names sam twice: a and b"),
        (["a.pth", "b.pth"], r"one value for all teachers, found a\.pth and b\.pth"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(given: list[str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        choose_weights(given, ["sam", "dinov2"])
