import pytest
import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, smooth_l1_loss

from difom_train.distill import cosine_and_smooth_l1, mean_inside, relation_error, soft_mask_loss, squared_error


def test_means_are_taken_over_channels_and_cells_inside():
    values = torch.tensor([[[[1.0, 2.0]], [[3.0, 90.0]]]])  # (1, 2, 1, 2)
    inside = torch.tensor([[[[1.0, 0.0]]]])
    assert mean_inside(values, inside).tolist() == [2.0]
    assert mean_inside(values, torch.zeros(1, 1, 1, 2)).tolist() == [0.0]


def test_squared_error_of_a_worked_map():
    student, target = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[3.0, 4.0]]]])
    assert squared_error(student, target, torch.ones(1, 1, 1, 2)).tolist() == [2.5]


def test_cosine_looks_at_direction_and_smooth_l1_at_size():
    target = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    inside = torch.ones(1, 1, 1, 1)
    torch.testing.assert_close(cosine_and_smooth_l1(target, target, inside), torch.zeros(1))
    # twice as long: cosine 1; smooth L1 of differences 3 and 4 is (2.5 + 3.5) / 2
    torch.testing.assert_close(cosine_and_smooth_l1(2 * target, target, inside), torch.tensor([0.3]))
    # opposite: 0.9 x 2, and differences 6 and 8 give (5.5 + 7.5) / 2
    torch.testing.assert_close(cosine_and_smooth_l1(-target, target, inside), torch.tensor([1.8 + 0.65]))


@pytest.mark.parametrize("innermost", [torch.contiguous_format, torch.channels_last])
def test_cosine_and_smooth_l1_in_one_are_pytorchs_two_and_so_is_the_gradient(innermost):
    generator = torch.Generator().manual_seed(0)
    student, target = (2 * torch.randn(2, 3, 7, 4, 5, generator=generator)).unbind(0)
    target[0, :, 1, 1] = 0  # a cell without a direction
    student[1, :, 0, 0] = 1e-9
    inside = torch.ones(3, 1, 4, 5)
    inside[2, :, :2] = 0
    ours, theirs = (student.clone(memory_format=innermost).requires_grad_() for _ in range(2))
    found = cosine_and_smooth_l1(ours, target, inside)
    cosine = cosine_similarity(theirs, target, dim=1, eps=1e-6).unsqueeze(1)
    distance = smooth_l1_loss(theirs, target, reduction="none")
    expected = 0.9 * mean_inside(1 - cosine, inside) + 0.1 * mean_inside(distance, inside)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    weights = torch.tensor([1.0, 2.0, 3.0])
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    # Below the least norm PyTorch's gradient is not that of its own number.
    assert ours.grad[1, :, 0, 0].isfinite().all()
    ours.grad[1, :, 0, 0] = theirs.grad[1, :, 0, 0] = 0
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)


def test_relations_are_cosines_of_all_pairs_of_cells_inside():
    generator = torch.Generator().manual_seed(0)
    student, target = torch.randn(2, 2, 5, 4, 4, generator=generator).unbind(0)
    inside = torch.ones(2, 1, 4, 4)
    inside[1, :, 3] = 0
    expected = []
    for own, wanted, here in zip(student, target, inside[:, 0].bool(), strict=True):
        both = [(x[:, here] - x[:, here].mean(dim=1, keepdim=True)).T for x in (own, wanted)]
        own_cosines, wanted_cosines = (cosine_similarity(x[:, None], x[None], dim=2) for x in both)
        expected.append(float(((own_cosines - wanted_cosines) ** 2).mean()))
    torch.testing.assert_close(relation_error(student, target, inside), torch.tensor(expected))


def test_the_gradient_of_relations_is_that_of_the_cosines_written_out():
    generator = torch.Generator().manual_seed(0)
    student, target = torch.randn(2, 3, 5, 4, 4, generator=generator, dtype=torch.float64).unbind(0)
    inside = torch.ones(3, 1, 4, 4, dtype=torch.float64)
    inside[1, :, 3] = 0
    inside[2, :, :, 1:3] = 0
    student[2, :, 0, 0] = student[2, :, inside[2, 0].bool()].mean(dim=1)  # a cell that is the mean has no direction
    weights = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)

    def written_out(x: Tensor) -> Tensor:
        errors = []
        for own, wanted, here in zip(x, target, inside[:, 0].bool(), strict=True):
            both = [(each[:, here] - each[:, here].mean(dim=1, keepdim=True)).T for each in (own, wanted)]
            lengths = [each.square().sum(dim=1).clamp_min(1e-12).sqrt() for each in both]
            cosines = [each @ each.T / (long[:, None] * long) for each, long in zip(both, lengths, strict=True)]
            errors.append((cosines[0] - cosines[1]).square().mean())
        return torch.stack(errors)

    ours, theirs = (student.clone().requires_grad_() for _ in range(2))
    found, expected = relation_error(ours, target, inside), written_out(theirs)
    (found * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    assert ours.grad[:2].abs().max() > 1e-3


def test_relations_see_no_turn_no_size_and_no_mean_and_no_picture_gives_none():
    target = torch.randn(2, 6, 20, 20, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1))).Q
    student = (3 * torch.einsum("ij,bjhw->bihw", turn, target) + 1).requires_grad_()
    inside = torch.ones(2, 1, 20, 20)
    found = relation_error(student, target, inside)
    torch.testing.assert_close(found, torch.zeros(2), atol=1e-6, rtol=0)
    nothing = relation_error(student, target, torch.zeros_like(inside))
    assert nothing.tolist() == [0.0, 0.0]
    (relation_error(student[:, :, :1, :1], target[:, :, :1, :1], inside[..., :1, :1]) + nothing).sum().backward()
    assert student.grad.isfinite().all()


def test_a_soft_mask_is_its_own_best_answer():
    prob = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(0)).clamp(0.01, 0.99)
    inside = torch.ones_like(prob)
    logits = prob.logit().requires_grad_()
    loss = soft_mask_loss(logits, prob, inside)
    torch.testing.assert_close(loss, torch.zeros(2), atol=1e-5, rtol=0)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.zeros_like(logits), atol=1e-5, rtol=0)


def test_a_soft_mask_of_certainties_stays_finite():
    prob = torch.tensor([0.0, 1.0]).view(1, 1, 1, 2)
    loss = soft_mask_loss(torch.tensor([-50.0, 50.0]).view(1, 1, 1, 2), prob, torch.ones(1, 1, 1, 2))
    torch.testing.assert_close(loss, torch.zeros(1), atol=1e-6, rtol=0)
