"""Caches of an earlier version open, and what it left half done is continued to the same bytes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_vectors import DIGESTS, EXTRACTED, LABELS, made_by_these_libraries, paint_of, thaw
from painted_folder import paint_folder

from difom_cache import extract, open_cache, verify
from difom_cache.errors import CacheIdentityError
from difom_train.data import JointCache

TAPS = [
    "dinov2-tiny-random/block3@16",
    "dinov2-tiny-random/block1@32",
    "sam-tiny-random/neck@16",
    "sam-tiny-random/block2@32",
]


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    return thaw("caches", tmp_path)


def test_a_finished_cache_of_an_earlier_version_has_the_digests_it_was_given(caches: Path) -> None:
    cache = open_cache(caches / "whole")
    assert cache.content_digests() == DIGESTS
    assert list(cache.taps) == TAPS
    assert cache.finished_rows().all() and len(cache) == 23
    assert verify(caches / "whole").sound


def test_a_half_finished_cache_is_continued_to_the_bytes_of_the_whole_one(
    caches: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    half = open_cache(caches / "half")
    assert half.finished_rows().sum() == 16
    if not made_by_these_libraries(half):
        with pytest.raises(CacheIdentityError, match="libraries"):
            extract(cache=caches / "half", **paint_of(caches), **EXTRACTED)
        return
    report = extract(cache=caches / "half", **paint_of(caches), **EXTRACTED | {"quiet": False})
    said = capsys.readouterr().out
    for label, taps in zip(LABELS, ("block3@16, block1@32", "neck@16, block2@32"), strict=True):
        assert f"teachers/{label} is continued with the taps that it holds: {taps}\n" in said
    assert report.complete and report.computed_blocks == {"pictures": 1, **{f"teachers/{each}": 1 for each in LABELS}}
    half, whole = open_cache(caches / "half"), open_cache(caches / "whole")
    one, other = (each.gather(np.arange(23), TAPS) for each in (half, whole))
    for name in (f"{tap}/code" for tap in TAPS):  # another kind of CPU may round elsewhere
        assert np.abs(one[name].astype(int) - other[name]).max() <= 1, name
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # that of the CPU it was begun on
        assert half.content_digests() == DIGESTS


def test_a_finished_cache_is_left_as_it_is_by_the_command_that_made_it(caches: Path) -> None:
    if not made_by_these_libraries(open_cache(caches / "whole")):
        pytest.skip("other libraries are installed than the cache was made with")
    report = extract(cache=caches / "whole", **paint_of(caches), **EXTRACTED)
    assert report.complete and not any(report.computed_blocks.values())
    assert open_cache(caches / "whole").content_digests() == DIGESTS


def test_other_taps_by_name_are_refused_with_what_continues_the_column(caches: Path) -> None:
    with pytest.raises(
        CacheIdentityError, match=r"holds the taps neck@16, block2@32.* leave out --taps and --strides"
    ) as found:
        extract(
            cache=caches / "half", **paint_of(caches), **EXTRACTED | {"taps": ("block2@16",), "teacher": "sam:tiny"}
        )
    assert "drop" not in str(found.value)


def test_new_records_are_joined_with_an_old_cache_by_like_alone(caches: Path, tmp_path: Path) -> None:
    """A new column has the default taps of today, the deepest at the coarsest stride; `--like` gives it those of the old one."""
    data, old = paint_folder(tmp_path / "new-ward", 3), open_cache(caches / "whole")
    options = {name: value for name, value in EXTRACTED.items() if name != "teacher"}
    extract(data=data, cache=tmp_path / "new", teacher=EXTRACTED["teacher"], **options)
    new = open_cache(tmp_path / "new")
    names = [[tap.name for tap in new.teachers[label].taps] for label in LABELS]
    assert names == [["block1@16", "block3@32"], ["block2@16", "neck@32"]]
    with pytest.raises(
        CacheIdentityError, match=r"cannot be mixed; extract new records with .*extract --like .*whole`"
    ):
        JointCache([old, new])
    extract(data=data, cache=tmp_path / "alike", like=caches / "whole", quiet=True)
    assert list(JointCache([old, open_cache(tmp_path / "alike")]).taps) == TAPS
