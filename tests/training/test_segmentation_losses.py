import math
from types import SimpleNamespace

import torch
from torch.nn.functional import avg_pool2d

from difom_train import build_student
from difom_train.distill import Distiller
from difom_train.training import Learner, segmentation_loss


def test_dice_and_cross_entropy_of_a_worked_picture():
    """Four pixels, two of them polyp, all at probability 1/2."""
    mask = torch.tensor([[[1, 1], [0, 0]]])
    loss = segmentation_loss("dice_bce", [torch.zeros(1, 1, 2, 2)], mask)
    dice = (2 * 1.0 + 1) / (2.0 + 2.0 + 1)  # overlap 2 x 0.5; sums of prob and mask are 2 and 2; smoothing 1
    assert math.isclose(loss.item(), math.log(2) + 1 - dice, rel_tol=1e-6)


def test_structure_loss_of_a_worked_picture():
    """A constant mask has weight 1 + 5 |local mean - 1|, and the local mean falls off at the zero-padded border."""
    mask = torch.ones(1, 8, 8)
    weight = 1 + 5 * (avg_pool2d(mask[None], 31, stride=1, padding=15) - 1).abs()
    assert math.isclose(weight[0, 0, 0, 0].item(), 1 + 5 * (1 - 64 / 961), rel_tol=1e-6)
    total = weight.sum().item()
    iou = (0.5 * total + 1) / (total + 1)  # overlap 0.5 W; union 1.5 W - 0.5 W = W
    loss = segmentation_loss("structure", [torch.zeros(1, 1, 8, 8)], mask)
    assert math.isclose(loss.item(), math.log(2) + 1 - iou, rel_tol=1e-5)


def test_structure_loss_minds_an_error_on_the_border_more_than_one_inside():
    """The published code's cross-entropy gives both the same, because its weights cancel."""
    mask = torch.zeros(1, 96, 96)
    mask[0, 20:76, 20:76] = 1
    right = (mask.unsqueeze(1) * 2 - 1) * 8
    on_border, inside = right.clone(), right.clone()
    on_border[0, 0, 20:24, 46:50] *= -1
    inside[0, 0, 46:50, 46:50] *= -1
    assert segmentation_loss("structure", [on_border], mask) > 1.5 * segmentation_loss("structure", [inside], mask)


def test_pictures_without_a_mask_take_nothing_from_those_with_one():
    """Half of a batch without masks: the loss of the masks is that of the half with them."""
    student = build_student("unet", width=2, seed=0).eval()
    learner = Learner(student, Distiller(SimpleNamespace(taps={}, decode=None), (), {}), "dice_bce")
    pixels, mask = torch.rand(4, 3, 32, 32), torch.zeros(4, 32, 32, dtype=torch.uint8)
    labelled = torch.tensor([True, False, True, False])
    whole, _, _ = learner(pixels, mask, labelled, None, {}, (1.0, 0.0))
    half, _, _ = learner(pixels[labelled], mask[labelled], labelled[labelled], None, {}, (1.0, 0.0))
    torch.testing.assert_close(whole, half)
