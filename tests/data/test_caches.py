"""Several caches read as one."""

import numpy as np
import pytest

from difom_cache.errors import CacheIdentityError, CacheIncompleteError
from difom_cache.store import TapSpec
from difom_train.config import DataConfig
from difom_train.data import JointCache, keys_of, require_taps, select_rows

A = TapSpec("a/x@16", "feature", 4, 2, 16, "float16")
B = TapSpec("b/y@16", "feature", 3, 2, 16, "float16")


@pytest.fixture
def parts(make_cache):
    both = {A.name: A, B.name: B}
    return [make_cache(records=8, taps=both, name="one"), make_cache(records=5, taps={A.name: A}, name="two", seed=1)]


def test_rows_of_both_caches_are_numbered_through(parts):
    joint = JointCache(parts)
    assert len(joint) == len(parts[0]) + len(parts[1])
    assert joint.record_ids([0, len(parts[0])]) == ["one/000", "two/000"]
    assert joint.rows_of("train").tolist()[-1] >= len(parts[0])


def test_batch_across_caches_holds_each_rows_own_bytes(parts):
    joint, edge = JointCache(parts), len(parts[0])
    rows = np.array([edge + 2, 0, edge, 3])
    batch = joint.gather(rows, [A.name])
    for place, row in enumerate(rows):
        part, local = (parts[1], row - edge) if row >= edge else (parts[0], row)
        alone = part.gather([local], [A.name])
        for key in ("image", "mask", f"{A.name}/code"):
            assert np.array_equal(batch[key][place], alone[key][0])


def test_batch_lands_in_buffers_that_are_given(parts):
    joint = JointCache(parts)
    out = {key: np.zeros_like(array) for key, array in joint.gather(np.arange(4), [A.name]).items()}
    rows = np.array([1, len(parts[0]) + 1, 0])
    batch = joint.gather(rows, [A.name], out)
    assert np.shares_memory(batch["image"], out["image"])
    assert np.array_equal(out["image"][:3], joint.gather(rows, [A.name])["image"])


def test_only_common_taps_are_offered(parts):
    assert set(JointCache(parts).taps) == {A.name}


def test_statistics_are_those_of_all_cells_together(parts):
    joint = JointCache(parts).stats(A.name)
    cells = []
    for part in parts:
        rows = np.flatnonzero(part.table.split == 0)
        code = part.gather(rows, [A.name], pictures=False)[f"{A.name}/code"].astype(np.float64)
        cells.append(code.transpose(0, 2, 3, 1).reshape(-1, A.channels))
    together = np.concatenate(cells)
    assert joint.count == len(together)
    np.testing.assert_allclose(joint.mean, together.mean(0), atol=1e-9)
    np.testing.assert_allclose(joint.covariance, np.cov(together.T, bias=True), atol=1e-9)


def test_same_teacher_with_other_weights_is_refused(make_cache):
    one = make_cache(taps={A.name: A}, name="one")
    other = make_cache(taps={A.name: A}, name="other", weights="b" * 64)
    with pytest.raises(
        CacheIdentityError, match=r"teacher 'a' differs in weights_digest: .*aaaa.* in one and .*bbbb.* in other"
    ):
        JointCache([one, other])


def test_other_picture_size_is_refused(make_cache):
    with pytest.raises(CacheIdentityError, match="one holds pictures of 32 px and two of 64 px"):
        JointCache([make_cache(name="one"), make_cache(name="two", picture_px=64)])


def test_unfinished_rows_are_counted_or_left_out(make_cache):
    cache = make_cache()
    cache.finished[[1, 4]] = False
    joint, rows = JointCache([cache]), np.arange(6)
    with pytest.raises(CacheIncompleteError, match="2 of 6 views are not finished"):
        require_taps(joint, rows, [], allow_partial=False)
    assert require_taps(joint, rows, [], allow_partial=True).tolist() == [0, 2, 3, 5]


def test_nothing_finished_is_an_error_even_if_partial_is_allowed(make_cache):
    cache = make_cache()
    cache.finished[:] = False
    with pytest.raises(CacheIncompleteError, match="not one of 3 views"):
        require_taps(JointCache([cache]), np.arange(3), [], allow_partial=True)


def test_two_caches_with_equal_ids_of_other_images_have_keys_of_their_own(make_cache):
    one, other = (make_cache(records=8, name=name, dataset="polyps", seed=seed) for seed, name in enumerate("ab"))
    joint = JointCache([one, other])
    assert len(np.unique(joint.record_key)) == 16
    assert set(JointCache([other, one]).record_key) == set(joint.record_key)
    assert len(set(joint.record_ids(np.arange(len(joint))))) == 16


def test_a_cache_alone_keeps_the_keys_of_its_ids(make_cache):
    cache = make_cache(records=8)
    joint = JointCache([cache])
    assert (joint.record_key == keys_of(cache.table.ids)[cache.table.record]).all()
    assert joint.groups([0]) == ["seq0"] and joint.record_ids([0]) == ["memory/000"]


def test_names_that_other_caches_do_not_have_keep_their_keys(parts):
    joint = JointCache(parts)
    assert (joint.record_key[: len(parts[0])] == keys_of(parts[0].table.ids)[parts[0].table.record]).all()


def test_an_image_with_its_mask_in_one_cache_alone_is_seen_with_it(make_cache):
    bare, masked = make_cache(unlabelled=8), make_cache(name="again", dataset="memory")
    joint = JointCache([bare, masked])
    chosen = select_rows(joint, DataConfig(), seed=0, usable=np.ones(len(joint), bool))
    assert len(np.unique(joint.record_key)) == len(bare.table.ids)
    assert joint.labelled[chosen.train].all()
    assert set(joint.record_key[chosen.train]) == set(joint.record_key[joint.rows_of("train")])


def test_one_folder_under_two_names_is_refused(make_cache, tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    with pytest.raises(CacheIdentityError, match=r"real and .*link are one cache"):
        JointCache([make_cache(name=str(tmp_path / "real")), make_cache(name=str(tmp_path / "link"), seed=1)])
