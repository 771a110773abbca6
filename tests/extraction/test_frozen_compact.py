"""Columns in codec `compact`, as an earlier version began them, are read and finished; new ones are refused, naming `packed`."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from frozen_vectors import COMPACT, made_by_these_libraries, paint_of, thaw

from difom_cache import copy, export_hdf5, extract, import_hdf5, open_cache, verify
from difom_cache.errors import SettingsError

LABEL, TAP = "mask2former-tiny-random", "mask2former-tiny-random/stage4@16"
DIGEST = "7e8fd100678e5d418005b7659f4d73ef2bdb49e06d5e456ca70e2d71e01aa293"
"""Of the finished column, as the earlier version printed it."""
WAY = r"^--codec compact: packed keeps more .*; choose --codec packed\."


@pytest.fixture
def caches(tmp_path: Path) -> Path:
    thaw("caches", tmp_path)  # whose images these are
    for name in ("half", "whole"):
        shutil.rmtree(tmp_path / name)
    return thaw("compact", tmp_path)


def continues(caches: Path) -> None:
    if not made_by_these_libraries(open_cache(caches / "half")):
        pytest.skip("other libraries are installed than the cache was made with")


def test_a_finished_column_is_read_verified_and_carried_over(caches: Path, tmp_path: Path) -> None:
    whole = open_cache(caches / "whole")
    assert whole.content_digests()[f"teachers/{LABEL}"] == DIGEST
    assert [tap.codec for tap in whole.taps.values()] == ["compact", "int8"] and verify(caches / "whole").sound
    copy(caches / "whole", tmp_path / "copy")
    export_hdf5(caches / "whole", tmp_path / "feats.h5")
    import_hdf5(tmp_path / "feats.h5", tmp_path / "back")
    for other in (tmp_path / "copy", tmp_path / "back"):
        assert open_cache(other).content_digests()[f"teachers/{LABEL}"] == DIGEST
    copy(caches / "whole", tmp_path / "packed", codec="packed")
    assert open_cache(tmp_path / "packed").taps[TAP].codec == "packed"


def test_a_begun_column_is_finished_to_the_bytes_of_the_whole_one(caches: Path) -> None:
    continues(caches)
    report = extract(cache=caches / "half", **paint_of(caches), **COMPACT)
    assert report.complete and report.computed_blocks == {f"teachers/{LABEL}": 1}
    half, whole = (open_cache(caches / name) for name in ("half", "whole"))
    one, other = (cache.gather(np.arange(23), [TAP], pictures=False)[f"{TAP}/code"] for cache in (half, whole))
    assert np.abs(one.astype(int) - other).max() <= 1  # another kind of CPU may round elsewhere
    if torch.backends.cpu.get_cpu_capability() == "AVX2":  # that of the CPU it was begun on
        assert half.content_digests()[f"teachers/{LABEL}"] == DIGEST


def test_a_dry_run_counts_the_bytes_of_a_begun_column(caches: Path) -> None:
    continues(caches)
    report = extract(cache=caches / "half", dry_run=True, **paint_of(caches), **COMPACT)
    assert report.missing_blocks == {f"teachers/{LABEL}": 1}
    assert report.estimate.bytes_per_view[f"{TAP}/code"] == 48 * 16


def test_new_records_like_an_old_cache_take_its_codec_and_basis(caches: Path, tmp_path: Path) -> None:
    extract(cache=tmp_path / "new", like=caches / "whole", **paint_of(caches), quiet=True)
    old, new = (open_cache(cache).teachers[LABEL].taps for cache in (caches / "whole", tmp_path / "new"))
    assert [tap.codec for tap in new] == [tap.codec for tap in old] and new[0].codec.name == "compact"


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_new_column_is_refused_and_leaves_no_cache(caches: Path, tmp_path: Path, dry_run: bool) -> None:
    with pytest.raises(SettingsError, match=WAY):
        extract(cache=tmp_path / "new", dry_run=dry_run, **paint_of(caches), **COMPACT)
    assert not (tmp_path / "new").exists()


def test_a_column_of_another_codec_is_not_continued_in_compact(caches: Path, tmp_path: Path) -> None:
    extract(cache=tmp_path / "new", **paint_of(caches), **COMPACT | {"codec": "int8"})
    with pytest.raises(SettingsError, match=WAY):
        extract(cache=tmp_path / "new", **paint_of(caches), **COMPACT)
