import torch

from difom_train.distill import cosine_and_smooth_l1, mean_inside, soft_mask_loss, squared_error


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
