"""Two commands at one cache at the same time: each ends right or with one clear line, and nothing is lost or falsified."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from painted_folder import paint_folder

from difom_cache import finish, open_cache, verify

pytestmark = pytest.mark.journey
Nursery = Callable[..., dict[str, Any]]
ROUNDS = pytest.mark.parametrize("rounds", [1, pytest.param(20, marks=pytest.mark.slow)])
SHORT_S, LONG_S = 0.3, 2.0  # how late the second of two may begin: about what building a teacher, and all of it, takes
FIRST, SECOND = "dinov2-tiny-random", "mask2former-tiny-random"


@dataclass(frozen=True)
class Calm:
    """What becomes of everything when one command follows the other.

    Attributes:
        extract: the work of extracting the first teacher, and that of the second.
        train: the work of training from the first.
        first, both: caches of one and of both teachers; `pending` lacks the sums of its blocks' statistics.
        weights: digest of the student that was trained.
    """

    extract: tuple[dict[str, Any], dict[str, Any]]
    train: dict[str, Any]
    first: Path
    both: Path
    pending: Path
    weights: str


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, nursery: Nursery) -> Calm:
    root = tmp_path_factory.mktemp("calm")
    data = paint_folder(root / "data", frames=12)
    extracts = tuple(
        {"do": "extract", "data": str(data), "teacher": teacher, "input_size": 64, "views": 4}
        for teacher in ("dinov2:tiny@56", "mask2former:tiny@64")
    )
    training = {"do": "train", "teachers": FIRST, "recipe": "difom", "epochs": 2}
    steps = [("first", extracts[0]), ("pending", extracts[0] | {"summed": False}), ("both", extracts[0])]
    for name, work in [*steps, ("both", extracts[1])]:
        assert at_once(nursery, root, root / name, work) == [{"said": True}]
    [trained] = at_once(nursery, root, root / "first", training | {"out": str(root / "run")})
    return Calm((extracts[0], extracts[1]), training, root / "first", root / "both", root / "pending", trained["said"])


def at_once(nursery: Nursery, root: Path, cache: Path, *works: dict[str, Any]) -> list[dict[str, Any]]:
    """Do these works at once, and return what became of each; no temporary file may be left."""
    loaded = [work for work in works if work["do"] == "extract"]
    answer = nursery(task="beside", root=str(root), cache=str(cache), works=list(works), load=loaded)
    assert not answer["left"]
    for work in answer["works"]:
        assert "\n" not in work.get("line", "") and work.get("error") != "a traceback, on stderr", work
    found: list[dict[str, Any]] = answer["works"]
    return found


def assert_equal(cache: Path, calm: Path) -> None:
    assert open_cache(cache).content_digests() == open_cache(calm).content_digests()
    assert verify(cache).problems == [] and not (cache / "damaged.json").exists()


@ROUNDS
def test_two_extractions_of_one_teacher(rounds: int, nursery: Nursery, calm: Calm, tmp_path: Path):
    chance = random.Random(rounds)
    for number in range(rounds):
        cache = tmp_path / str(number)
        late = calm.extract[0] | {"after_s": chance.uniform(0, SHORT_S)}
        assert at_once(nursery, tmp_path, cache, calm.extract[0], late) == [{"said": True}] * 2
        assert_equal(cache, calm.first)


@ROUNDS
def test_a_training_and_readers_beside_an_extraction_of_another_teacher(
    rounds: int, nursery: Nursery, calm: Calm, tmp_path: Path
):
    chance = random.Random(rounds)
    for number in range(rounds):
        cache = Path(shutil.copytree(calm.first, tmp_path / str(number)))
        moments = [{"after_s": chance.uniform(0, LONG_S)} for _ in range(3)]
        trained, problems, blocks, done = at_once(
            nursery,
            tmp_path,
            cache,
            calm.train | moments[0] | {"out": str(tmp_path / f"run{number}")},
            {"do": "verify"} | moments[1],
            {"do": "info"} | moments[2],
            calm.extract[1],
        )
        assert (trained, problems, done) == ({"said": calm.weights}, {"said": []}, {"said": True})
        first = open_cache(calm.first)
        for column in first.columns():
            assert blocks["said"][column.folder] == column.blocks
        assert_equal(cache, calm.both)


@ROUNDS
def test_a_teacher_dropped_while_it_is_extracted(rounds: int, nursery: Nursery, calm: Calm, tmp_path: Path):
    chance = random.Random(rounds)
    for number in range(rounds):
        cache = tmp_path / str(number)
        dropping = {"do": "drop", "teacher": FIRST, "after_s": chance.uniform(0, LONG_S)}
        extracted, dropped = at_once(nursery, tmp_path, cache, calm.extract[0], dropping)
        if "error" in dropped:
            assert dropped["error"] in ("CacheFormatError", "CacheIncompleteError"), dropped  # not begun as yet
        if "error" in extracted:
            assert extracted["error"] in ("CacheIdentityError", "CacheFormatError"), extracted
            assert "was dropped while this run" in extracted["line"] or "identity.json is missing" in extracted["line"]
        else:
            lying = cache / "teachers" / FIRST / "identity.json"
            assert extracted["said"] is True or not lying.exists() or finish(cache)[f"teachers/{FIRST}"]
        again = at_once(nursery, tmp_path, cache, calm.extract[0])
        assert again == [{"said": True}], (extracted, dropped)
        assert_equal(cache, calm.first)
        finish(cache)
        assert not list(cache.glob("teachers/.dropped-*"))


@ROUNDS
def test_a_training_while_statistics_are_summed_up(rounds: int, nursery: Nursery, calm: Calm, tmp_path: Path):
    chance = random.Random(rounds)
    for number in range(rounds):
        cache = Path(shutil.copytree(calm.pending, tmp_path / str(number)))
        assert list(cache.glob("teachers/*/moments/*")) and not list(cache.glob("teachers/*/statistics.safetensors"))
        training = calm.train | {"out": str(tmp_path / f"run{number}")}
        trained, missing = at_once(
            nursery, tmp_path, cache, training, {"do": "finish", "after_s": chance.uniform(0, SHORT_S)}
        )
        assert trained == {"said": calm.weights}
        assert set(missing["said"]) == {"pictures", f"teachers/{FIRST}"} and not any(missing["said"].values())
        assert_equal(cache, calm.first)
