import pytest
import torch

from difom_cache.errors import TeacherError
from difom_train.distill import fit_calibration, sample_cells


def test_slope_and_offset_of_a_known_teacher_are_found():
    """Masks drawn with probability sigmoid(2 t + 1)."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(200_000, generator=generator) * 3 - 1.7
    mask = (torch.rand(200_000, generator=generator) < (2 * logits + 1).sigmoid()).float()
    fitted = fit_calibration("t", logits, mask)
    assert fitted.slope == pytest.approx(2, abs=0.05) and fitted.offset == pytest.approx(1, abs=0.05)


def test_a_background_far_from_zero_is_put_right():
    """The teacher says -1.7 for background and -1.2 for polyp: no threshold at 0 would find any."""
    mask = torch.tensor([0.0, 1.0]).repeat(1000)
    logits = -1.7 + 0.5 * mask + 0.1 * torch.randn(2000, generator=torch.Generator().manual_seed(0))
    fitted = fit_calibration("t", logits, mask)
    prob = (fitted.slope * torch.tensor([-1.7, -1.2]) + fitted.offset).sigmoid()
    assert prob[0] < 0.1 and prob[1] > 0.9


def test_a_teacher_that_separates_every_pixel_gets_a_finite_slope():
    mask = torch.tensor([0.0, 1.0]).repeat(100)
    fitted = fit_calibration("t", mask * 2 - 1, mask)
    assert 1 < fitted.slope < 100 and abs(fitted.offset) < 1e-3


def test_logits_that_fall_where_the_masks_are_are_refused():
    mask = torch.tensor([0.0, 1.0]).repeat(100)
    with pytest.raises(TeacherError, match=r"logits of onnx/out@2 .*slope -.*logits_weight to 0"):
        fit_calibration("onnx/out@2", -mask, mask)


def test_no_mask_at_all_is_said():
    with pytest.raises(TeacherError, match="no training record in the cache has a mask"):
        fit_calibration("t", torch.empty(0), torch.empty(0))


def test_cells_are_sampled_evenly_and_alike():
    values = torch.arange(2 * 128 * 128).view(2, 1, 128, 128)
    cells = sample_cells(values)
    assert cells.shape == (2, 4096) and cells[0, :3].tolist() == [0, 4, 8]
