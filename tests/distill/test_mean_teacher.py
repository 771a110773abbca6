"""The averaged weights teach where they are sure, as worked by hand; hard masks are 0 or 1."""

from math import log

import pytest
import torch

from difom_cache.store import TapSpec
from difom_train import build_student
from difom_train.config import DistillConfig
from difom_train.data import JointCache
from difom_train.distill import build_distiller, find_sure
from difom_train.students import StudentOutput


def build(make_cache, taps, **options):
    student = build_student("unet", width=4, weights="random", seed=0)
    cache = JointCache([make_cache(records=10, views=1, picture_px=32, taps=taps)])
    return build_distiller(DistillConfig(**options), cache=cache, student=student, input_px=32, seed=0), cache


def test_only_sure_pixels_inside_the_frame_teach(make_cache):
    distiller, _ = build(make_cache, {}, kind="mean_teacher", confidence=0.9)
    average = torch.tensor([[[[3.0, 1.0], [-3.0, 3.0]]]])  # prob .953 .731 / .047 .953
    targets = distiller.targets_of(average)
    student = StudentOutput(logits=[torch.zeros(1, 1, 2, 2)], levels={}, neck={})
    whole = distiller.terms(student, targets, None)["consistency"]
    assert float(whole) == pytest.approx(3 / 4 * log(2))  # logits of 0 cost ln 2 at each of three sure pixels
    valid = torch.tensor([[[1, 1], [1, 0]]], dtype=torch.uint8)
    assert float(distiller.terms(student, targets, valid)["consistency"]) == pytest.approx(2 / 3 * log(2))


def test_the_student_is_drawn_to_the_side_that_the_average_takes(make_cache):
    distiller, _ = build(make_cache, {}, kind="mean_teacher", confidence=0.6)
    logits = torch.zeros(1, 1, 1, 2, requires_grad=True)
    targets = distiller.targets_of(torch.tensor([[[[2.0, -2.0]]]]))
    distiller.terms(StudentOutput(logits=[logits], levels={}, neck={}), targets, None)["consistency"].sum().backward()
    assert logits.grad[0, 0, 0, 0] < 0 < logits.grad[0, 0, 0, 1]


def test_a_class_that_is_never_sure_is_taught_by_its_surest_half():
    """A fixed threshold would leave polyp out until the student is sure of it; the mean of the class itself does not."""
    prob = torch.tensor([[[[0.6, 0.7, 0.8, 0.02, 0.04, 0.3]]]])
    found = find_sure(prob, torch.ones_like(prob), 0.95)
    # polyp: mean .7; the others: mean of .98, .96, .7 is .88
    assert found[0, 0, 0].tolist() == [0, 1, 1, 1, 1, 0]
    assert find_sure(prob, (prob != 0.8).float(), 0.95)[0, 0, 0].tolist() == [0, 1, 0, 1, 1, 0]
    assert find_sure(torch.full((1, 1, 1, 2), 0.5), torch.ones(1, 1, 1, 2), 0.95).tolist() == [[[[1, 1]]]]


@pytest.mark.parametrize("hard", [False, True])
def test_hard_masks_are_cut_at_half_and_weigh_the_same_everywhere(make_cache, hard):
    taps = {"probe/logits@4": TapSpec("probe/logits@4", "logits", 1, 8, 4, "float16")}
    distiller, _ = build(make_cache, taps, kind="multiscale", feature_weight=0.0, hard_masks=hard)
    prob = torch.tensor([[[[0.6, 0.4], [0.9, 0.2]]]])
    output = StudentOutput(logits=[torch.zeros(1, 1, 2, 2)], levels={}, neck={})
    found = float(distiller.mask_error(output, {"probe/logits@4": prob}, None))
    truth, weight = ((prob > 0.5).float(), torch.ones_like(prob)) if hard else (prob, (2 * prob - 1) ** 2)
    divergence = (truth.xlogy(2 * truth) + (1 - truth).xlogy(2 - 2 * truth)) * weight
    dice = (2 * (0.5 * truth * weight).sum() + 1) / (((0.25 + truth**2) * weight).sum() + 1)
    assert found == pytest.approx(float(divergence.sum() / weight.sum() + 1 - dice), rel=1e-5)
