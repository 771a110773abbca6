"""Phases, learning rates and processes are pure functions of counts."""

import math

import pytest
import torch

from difom_train import build_student
from difom_train.config import OptimizerConfig
from difom_train.training import (
    build_optimizer,
    count_processes,
    ema_decay_at,
    first_host,
    phase_of,
    ramp,
    rate_factor,
    set_mode,
)

PAPER = [0.3333, 0.6667, 1.0]


def test_papers_phases_of_75_epochs():
    phases = [phase_of(epoch, 75, PAPER) for epoch in range(75)]
    assert [phases.count(number) for number in range(3)] == [25, 25, 25]


@pytest.mark.parametrize(("epochs", "expected"), [(1, [1]), (2, [0, 2]), (3, [0, 1, 2])])
def test_short_runs_leave_phases_out(epochs, expected):
    assert [phase_of(epoch, epochs, PAPER) for epoch in range(epochs)] == expected


def test_freezing_holds_batch_norm_still_and_thaws_again():
    student = build_student("unet", width=4, weights="random", neck="difom", seed=0)
    set_mode(student, freeze_encoder=True)
    parts = student.encoder_modules()
    assert not any(part.training or any(p.requires_grad for p in part.parameters()) for part in parts)
    assert student.training and any(p.requires_grad for p in student.parameters())
    set_mode(student, freeze_encoder=False)
    assert all(part.training and all(p.requires_grad for p in part.parameters()) for part in parts)


def test_rate_rises_then_falls_to_one_per_cent():
    options = OptimizerConfig(schedule="cosine", warmup_frac=0.1)
    assert [rate_factor(options, step, 100) for step in (0, 9, 10)] == pytest.approx([1 / 11, 10 / 11, 1.0])
    assert rate_factor(options, 55, 100) == pytest.approx(0.505)
    assert rate_factor(options, 100, 100) == pytest.approx(0.01)


def test_constant_rate_stays():
    options = OptimizerConfig(schedule="constant", warmup_frac=0.0)
    assert {rate_factor(options, step, 10) for step in range(10)} == {1.0}


def test_pretrained_encoder_moves_slower_and_vectors_do_not_decay():
    student = build_student("unet", width=4, weights="random", seed=0)
    options = OptimizerConfig(name="adamw", lr=1e-3, pretrained_encoder_lr_factor=0.2, weight_decay=0.1)
    optimizer = build_optimizer(options, student, [], pretrained=True)
    groups = {(group["lr"], group["weight_decay"]): group["params"] for group in optimizer.param_groups}
    assert groups.keys() == {(2e-4, 0.1), (2e-4, 0.0), (1e-3, 0.1), (1e-3, 0.0)}
    encoder = {id(p) for part in student.encoder_modules() for p in part.parameters()}
    assert {id(p) for (lr, _), params in groups.items() if lr == 2e-4 for p in params} == encoder
    assert all(p.ndim == 1 for (_, decay), params in groups.items() if decay == 0 for p in params)


@pytest.mark.parametrize(
    ("name", "rule"), [("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW), ("sgd", torch.optim.SGD)]
)
def test_a_fused_step_is_the_rules_own(name, rule):
    ours, theirs = (build_student("unet", width=2, seed=0) for _ in range(2))
    optimizer = build_optimizer(OptimizerConfig(name=name, lr=1e-2, weight_decay=0), ours, [], pretrained=False)
    reference = rule(theirs.parameters(), lr=1e-2, weight_decay=0, **({"momentum": 0.9} if name == "sgd" else {}))
    for step in range(3):
        for each, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            each.grad = torch.randn(each.shape, generator=torch.Generator().manual_seed(step))
            other.grad = each.grad.clone()
        optimizer.step()
        reference.step()
    for each, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(each, other, rtol=1e-5, atol=1e-6)


def test_processes_are_counted_from_torchrun_and_srun():
    assert count_processes({}).world == 1
    torchrun = count_processes({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "6"})
    assert (torchrun.on_machine, torchrun.machines) == (2, 3)
    slurm = {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "train"}
    assert (count_processes(slurm).on_machine, count_processes(slurm).machines) == (4, 2)
    assert count_processes(slurm | {"SLURM_JOB_NAME": "bash"}).world == 1
    assert count_processes({"SLURM_NTASKS": "8"}).world == 1


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("node07", "node07"),
        ("gpu[01-03,07],cpu5", "gpu01"),
        ("a[5],b", "a5"),
        ("host0 host1", "host0"),
        ("n[2,4]-ib", "n2-ib"),
        ("127.0.0.1", "127.0.0.1"),
    ],
)
def test_processes_of_srun_meet_at_the_first_of_its_nodes(nodes: str, first: str):
    assert first_host(nodes) == first


def test_terms_rise_as_laine_and_aila_wrote_it():
    assert [ramp(0.5, step, 100) for step in (0, 25, 50, 99)] == pytest.approx([math.exp(-5), math.exp(-1.25), 1, 1])
    assert ramp(0.0, 0, 100) == 1


def test_averaged_weights_forget_the_first_ones_sooner():
    assert [ema_decay_at(0.99, step) for step in (0, 8, 10_000)] == pytest.approx([0.1, 0.5, 0.99])
