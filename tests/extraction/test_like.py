"""`--like OLD`: new records in a cache that is trained on together with an older one."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from painted_folder import paint_folder

from difom_cache import extract, open_cache, verify
from difom_cache.errors import CacheFormatError, CacheIdentityError, CodecError, SettingsError
from difom_train.data import JointCache

SETTINGS: dict[str, Any] = {
    "weights": "random",
    "input_size": 64,
    "views": 3,
    "seed": 5,
    "plan": "flips",
    "quiet": True,
}


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache of two commands: one teacher in float16, one packed at other strides."""
    data = paint_folder(tmp_path_factory.mktemp("old-ward"), 12)
    cache = tmp_path_factory.mktemp("old") / "feats"
    extract(data=data, cache=cache, teacher="dinov2:tiny@56", codec="float16", batch_size=2, **SETTINGS)
    extract(data=data, cache=cache, teacher="sam:tiny@64", codec="packed", strides=16, **SETTINGS)
    return cache


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return paint_folder(tmp_path / "new-ward", 9)


def test_every_setting_is_taken_and_both_are_trained_on_together(old: Path, data: Path, tmp_path: Path) -> None:
    extract(data=data, cache=tmp_path / "new", like=old, quiet=True)
    first, second = open_cache(old), open_cache(tmp_path / "new")
    assert (
        second.finished_rows().all() and second.teachers.keys() == first.teachers.keys() and len(second.teachers) == 2
    )
    for label, held in first.teachers.items():
        mine = second.teachers[label]
        assert mine.taps == held.taps and mine.batch == held.batch  # a basis by its digest, too
        assert mine.teacher == held.teacher
    plans = [{**cache.identity.to_dict()["plan"], "digest": ""} for cache in (first, second)]
    assert plans[0] == plans[1] and second.picture_px == 64
    joint = JointCache([first, second])
    assert len(joint) == len(first.table) + len(second.table) and joint.taps.keys() == first.taps.keys()


def test_the_same_command_again_computes_nothing_and_goes_on_where_it_stopped(
    old: Path, data: Path, tmp_path: Path
) -> None:
    one = extract(data=data, cache=tmp_path / "new", like=old, teacher="dinov2:tiny", quiet=True)
    assert list(open_cache(tmp_path / "new").teachers) == ["dinov2-tiny-random"] and one.complete
    before = open_cache(tmp_path / "new").content_digests()
    both = extract(data=data, cache=tmp_path / "new", like=old, quiet=True)
    assert set(both.computed_blocks) == {"teachers/sam-tiny-random"}
    after = open_cache(tmp_path / "new").content_digests()
    assert before.items() - {("cache", before["cache"])} <= after.items()
    assert not extract(data=data, cache=tmp_path / "new", like=old, quiet=True).computed_blocks


def test_a_basis_is_taken_over_where_the_new_records_could_not_give_one(data: Path, tmp_path: Path) -> None:
    settings = {**SETTINGS, "teacher": "dinov3_convnext:tiny@64", "codec": "packed"}
    old, new = tmp_path / "old", tmp_path / "new"
    extract(data=paint_folder(tmp_path / "many", 60, width=48), cache=old, **settings)
    with pytest.raises(CodecError, match=r"more positions than the 128 channels"):
        extract(data=data, cache=tmp_path / "alone", **settings)
    extract(data=data, cache=new, like=old, quiet=True)
    first, second = (open_cache(cache).teachers["dinov3_convnext-tiny-random"].taps for cache in (old, new))
    assert [tap.codec.name for tap in first] == ["int8", "packed"] and first == second
    assert JointCache([open_cache(old), open_cache(new)]).taps.keys() == open_cache(new).taps.keys()
    assert verify(new).problems == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"views": 4}, r"--views 4: --like \S+ has 3; leave --views out"),
        ({"seed": 0}, r"--seed 0: --like \S+ has 5"),
        ({"plan": "pad"}, r"--plan pad: --like \S+ has flips"),
        ({"input_size": 96}, r"--input-size 96: --like \S+ has 64"),
        ({"pictures": False}, r"holds pictures, and this run asks for the contrary"),
        ({"codec": "int8"}, r"--codec comes from --like"),
        ({"strides": 8}, r"--strides comes from --like"),
    ],
)
def test_an_option_that_says_something_else_is_refused(
    old: Path, data: Path, tmp_path: Path, given: Any, message: str
) -> None:
    with pytest.raises(SettingsError, match=message):
        extract(data=data, cache=tmp_path / "new", like=old, quiet=True, **given)
    assert not (tmp_path / "new").exists()


def test_an_option_that_says_the_same_is_welcome(old: Path, data: Path, tmp_path: Path) -> None:
    report = extract(data=data, cache=tmp_path / "new", like=old, views=3, input_size=64, dry_run=True, quiet=True)
    assert set(report.missing_blocks) == {"pictures", "teachers/dinov2-tiny-random", "teachers/sam-tiny-random"}


def test_what_cannot_be_meant_is_one_line(old: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="is the cache to fill"):
        extract(data=data, cache=old, like=old, quiet=True)
    with pytest.raises(CacheFormatError, match="is not a cache"):
        extract(data=data, cache=tmp_path / "new", like=data, quiet=True)
    with pytest.raises(CacheFormatError, match="holds none of the teachers hf:x"):
        extract(data=data, cache=tmp_path / "new", like=old, teacher="hf:x", quiet=True)
    with pytest.raises(SettingsError, match=r"--teacher is missing: name one, or --like"):
        extract(data=data, cache=tmp_path / "new", teacher=None, quiet=True)


def test_a_teacher_that_gives_other_features_is_refused_before_its_column(
    old: Path, data: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(old, tmp_path / "copy"))
    identity = copy / "teachers" / "dinov2-tiny-random" / "identity.json"
    held = open_cache(copy).teachers["dinov2-tiny-random"].teacher.weights_digest
    identity.write_text(identity.read_text().replace(held, "0" * len(held)))
    with pytest.raises(CacheIdentityError, match=rf"weights_digest: held 0{{12}}\.\.\., this run {held[:12]}"):
        extract(data=data, cache=tmp_path / "new", like=copy, teacher="dinov2:tiny", quiet=True)
    assert not (tmp_path / "new" / "teachers" / "dinov2-tiny-random" / "identity.json").exists()
