from types import SimpleNamespace

import numpy as np
import pytest
import torch

from difom_cache.errors import TeacherError
from difom_train.distill import FrozenTarget, equal_variance_rotation, fit_projection


def moments_of(cells):
    """Return mean and covariance of cells (n, C)."""
    return SimpleNamespace(mean=cells.mean(0), covariance=np.cov(cells.T, bias=True))


@pytest.fixture
def cells():
    """(4000, 6): few causes, means far from zero, one channel nearly dead."""
    rng = np.random.default_rng(0)
    cells = rng.normal(size=(4000, 6)) @ rng.normal(size=(6, 6)) * 30 + rng.normal(size=6) * 100
    cells[:, 2] = 7 + 5e-5 * rng.normal(size=4000)
    return cells


def project(projection, cells):
    return (cells - projection.mean) @ projection.matrix.T


def test_targets_are_centred_with_mean_channel_variance_one(cells):
    target = project(fit_projection("t", moments_of(cells), 4), cells)
    np.testing.assert_allclose(target.mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(target.var(0).mean(), 1, rtol=1e-9)


def test_one_scale_for_a_tap_keeps_the_shape_of_its_space(cells):
    """With every direction kept, distances between cells are all divided by the same number."""
    target = project(fit_projection("t", moments_of(cells), 6), cells)
    before = np.linalg.norm(cells[:50] - cells[50:100], axis=1)
    after = np.linalg.norm(target[:50] - target[50:100], axis=1)
    np.testing.assert_allclose(after / before, (after / before)[0], rtol=1e-4)


def test_a_dead_channel_is_not_blown_up(cells):
    """Dividing each channel by its own deviation would give this one's noise variance 1."""
    projection = fit_projection("t", moments_of(cells), 6)
    noise = np.zeros((1, 6))
    noise[0, 2] = 5e-5
    assert np.abs(project(projection, projection.mean + noise)).max() < 1e-4


def test_a_worked_projection():
    """Variances 9, 4 and 1 along the axes: two directions keep 13/14, and the scale is sqrt((9 + 4) / 2)."""
    moments = SimpleNamespace(mean=np.array([1.0, 2.0, 3.0]), covariance=np.diag([4.0, 1.0, 9.0]))
    projection = fit_projection("t", moments, 2)
    assert projection.kept_frac == pytest.approx(13 / 14)
    scale = np.sqrt(6.5)
    np.testing.assert_allclose(projection.matrix, [[0, 0, 1 / scale], [1 / scale, 0, 0]], atol=1e-12)


@pytest.mark.parametrize("variances", [[9.0, 4.0, 1.0], [5.0, 5.0], [1.0], [100.0, 1e-3, 2.0, 2.0, 7.0, 0.5, 3.0]])
def test_a_rotation_gives_every_channel_the_same_variance(variances):
    rotation = equal_variance_rotation(np.array(variances))
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(variances)), atol=1e-12)
    np.testing.assert_allclose(np.diag(rotation @ np.diag(variances) @ rotation.T), np.mean(variances), rtol=1e-9)


def test_equalised_targets_have_variance_one_in_every_channel(cells):
    target = project(fit_projection("t", moments_of(cells), 5, equalise=True), cells)
    np.testing.assert_allclose(target.var(0), 1, rtol=1e-6)


def test_signs_do_not_depend_on_the_solver(cells, monkeypatch):
    moments = moments_of(cells)
    first = fit_projection("t", moments, 4)
    values, vectors = np.linalg.eigh(moments.covariance)
    monkeypatch.setattr(np.linalg, "eigh", lambda _: (values, -vectors))
    np.testing.assert_array_equal(fit_projection("t", moments, 4).matrix, first.matrix)


@pytest.mark.parametrize("covariance", [np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_a_tap_that_never_varies_is_refused(covariance):
    with pytest.raises(TeacherError, match="tap sam/neck@16 has a total variance of"):
        fit_projection("sam/neck@16", SimpleNamespace(mean=np.zeros(3), covariance=covariance), 2)


def test_the_module_computes_the_same_numbers_and_trains_nothing(cells):
    projection = fit_projection("t", moments_of(cells), 4)
    target = FrozenTarget(projection)
    maps = torch.tensor(cells[:12], dtype=torch.float32).T.reshape(1, 6, 3, 4)
    expected = project(projection, cells[:12]).T.reshape(1, 4, 3, 4)
    np.testing.assert_allclose(target(maps).numpy(), expected, atol=1e-4)
    assert list(target.parameters()) == [] and set(target.state_dict()) == {"mean", "matrix"}
