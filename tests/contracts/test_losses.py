"""What every segmentation loss promises; a new loss is in `LOSSES` and so is tested here."""

import pytest
import torch

from difom_cache.errors import SettingsError
from difom_train.training import LOSSES, segmentation_loss


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


@pytest.fixture
def mask():
    mask = torch.zeros(3, 40, 40, dtype=torch.uint8)
    mask[0, 5:20, 8:30] = 1
    mask[1, 30:35, 2:9] = 1
    return mask  # the third is empty


def certain(mask: torch.Tensor) -> torch.Tensor:
    """Return logits (B, 1, H, W) of somebody who knows the mask."""
    return (mask.float().unsqueeze(1) * 2 - 1) * 30


def test_one_finite_number_comes_back_for_each_picture(name, mask):
    loss = segmentation_loss(name, [torch.randn(3, 1, 40, 40) * 50], mask)
    assert loss.shape == (3,) and loss.dtype == torch.float32 and loss.isfinite().all()


def test_the_right_answer_costs_nothing_an_empty_mask_included(name, mask):
    torch.testing.assert_close(segmentation_loss(name, [certain(mask)], mask), torch.zeros(3), atol=1e-5, rtol=0)


def test_the_wrong_answer_costs_more_than_the_undecided_one(name, mask):
    wrong = segmentation_loss(name, [certain(1 - mask)], mask)
    undecided = segmentation_loss(name, [torch.zeros(3, 1, 40, 40)], mask)
    assert (wrong > undecided).all() and (undecided > 0.1).all()


def test_a_picture_costs_the_same_alone_as_in_a_batch(name, mask):
    logits = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    together = segmentation_loss(name, [logits], mask)
    alone = [segmentation_loss(name, [logits[i : i + 1]], mask[i : i + 1])[0] for i in range(3)]
    torch.testing.assert_close(together, torch.stack(alone))


def test_outputs_add_up(name, mask):
    first, second = torch.randn(2, 3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    both = segmentation_loss(name, [first, second], mask)
    torch.testing.assert_close(both, segmentation_loss(name, [first], mask) + segmentation_loss(name, [second], mask))


def test_what_lies_outside_the_frame_does_not_count(name, mask):
    valid = torch.ones_like(mask)
    valid[:, :, 32:] = 0
    logits = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    changed = logits.clone()
    changed[..., 32:] = 99.0
    torch.testing.assert_close(
        segmentation_loss(name, [logits], mask, valid), segmentation_loss(name, [changed], mask, valid)
    )


def test_the_row_of_an_absent_mask_stays_finite_and_disturbs_no_other(name, mask):
    absent = mask.clone()
    absent[1] = 255
    logits = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(0))
    with_absent, without = segmentation_loss(name, [logits], absent), segmentation_loss(name, [logits], mask)
    assert with_absent.isfinite().all()
    torch.testing.assert_close(with_absent[[0, 2]], without[[0, 2]])


def test_half_precision_logits_are_summed_in_float32(name, mask):
    logits = torch.randn(3, 1, 40, 40, generator=torch.Generator().manual_seed(0)).bfloat16()
    torch.testing.assert_close(
        segmentation_loss(name, [logits], mask), segmentation_loss(name, [logits.float()], mask), rtol=0, atol=0
    )


def test_an_unknown_loss_is_refused_with_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'structure'"):
        segmentation_loss("structur", [torch.zeros(1, 1, 8, 8)], torch.zeros(1, 8, 8))
