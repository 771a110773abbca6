"""What networks cost: counted against numbers worked by hand, and set against their teachers."""

import json
from pathlib import Path

import pytest
import torch
from painted_frames import save_small_student
from torch import nn

from difom_cache.base.errors import SettingsError
from difom_train import build_student, load_student
from difom_train.evaluation import (
    Cost,
    CostTable,
    PublishedCost,
    compare_costs,
    count_flops,
    measure_cost,
    read_published_costs,
    time_passes,
)
from difom_train.students import count_parameters


def cost(name: str, kind: str, *, parameters: int | None, gflops: float | None, latency_p50_ms: float) -> Cost:
    return Cost(name, kind, 32, parameters, gflops, latency_p50_ms, latency_p50_ms, 1000 / latency_p50_ms, "cpu", 1)


def test_flops_of_a_convolution_are_two_a_multiply_add() -> None:
    # 3 x 3 window, 3 -> 8 channels, 10 x 10 places: 9 * 3 * 8 * 100 multiply-adds
    assert count_flops(nn.Conv2d(3, 8, 3, padding=1), torch.rand(1, 3, 10, 10)) == 2 * 9 * 3 * 8 * 100


def test_every_timed_pass_counts_and_warm_up_does_not() -> None:
    passes = []
    times_ms = time_passes(passes.append, torch.rand(1, 3, 4, 4), 5)
    assert times_ms.shape == (5,) and len(passes) == 5 + 3


def test_a_student_is_measured_at_the_input_size_of_its_run(tmp_path: Path) -> None:
    run = save_small_student(tmp_path / "small", input_px=48)
    measured = measure_cost(run, device="cpu", passes=3)
    assert (measured.name, measured.kind, measured.input_px) == ("small", "student", 48)
    assert measured.parameters == count_parameters(load_student(run))
    assert measured.gflops and measured.gflops > 0
    assert 0 < measured.latency_p50_ms <= measured.latency_p95_ms


def test_teachers_together_are_set_against_each_student() -> None:
    table = CostTable(
        (
            cost("small", "student", parameters=1_000_000, gflops=2.0, latency_p50_ms=5),
            cost("sam", "teacher", parameters=6_000_000, gflops=30.0, latency_p50_ms=30),
            cost("dinov2", "teacher", parameters=3_000_000, gflops=10.0, latency_p50_ms=20),
        )
    )
    assert table.ratios() == {"small": {"time": 10, "parameters": 9, "gflops": 20}}
    assert (
        "the teachers together cost 10.0 x the time, 9.0 x the parameters, 20.0 x the gflops of small" in table.render()
    )
    json.dumps(table.as_json())


def test_published_models_are_set_against_a_student_both_ways_at_its_input_size() -> None:
    models = (PublishedCost("A", 25.0, 4.0, 32, "paper A"), PublishedCost("B", 5.0, 4.0, 64, "paper B"))
    table = CostTable((cost("small", "student", parameters=1_000_000, gflops=2.0, latency_p50_ms=5),), models)
    first, second = table.as_json()["published"]["small"]
    assert (first["gflops"], first["model_over_student"], first["student_over_model"]) == (8.0, 4.0, 0.25)
    assert (second["gflops"], second["model_over_student"]) == (2.0, 1.0)  # a quarter of the area
    text = table.render()
    assert "A                       25.00    8.00     4.00     0.25" in text
    assert "2.00 *" in text and "* scaled by area" in text and "paper A; paper B" in text
    json.dumps(table.as_json())


def test_published_figures_count_a_multiply_add_once_and_ours_twice() -> None:
    """Our PraNet and U-Net++ are the networks of the table: counted here, they cost what is published of them."""
    published = {model.model: model for model in read_published_costs()}
    for name, model in (("pranet", published["PraNet"]), ("unet++", published["U-Net++"])):
        student = build_student(name, weights="random", seed=0).eval()
        assert count_flops(student, torch.rand(1, 3, 352, 352)) / 1e9 == pytest.approx(model.gflops_at(352), rel=0.02)
        assert count_parameters(student) / 1e6 == pytest.approx(model.parameters_m, rel=0.01)


def test_every_published_model_names_its_source() -> None:
    models = read_published_costs()
    assert len({model.model for model in models}) == len(models) > 10
    assert all(model.source and model.gmacs > 0 and model.parameters_m > 0 for model in models)


def test_what_an_onnx_teacher_does_not_tell_is_unknown_and_not_zero() -> None:
    table = CostTable(
        (
            cost("small", "student", parameters=10, gflops=1, latency_p50_ms=5),
            cost("onnx:x", "teacher", parameters=None, gflops=None, latency_p50_ms=10),
        )
    )
    assert table.ratios() == {"small": {"time": 2}}
    assert table.render().count("unknown") == 2


def test_a_real_teacher_costs_more_than_a_small_student(tmp_path: Path) -> None:
    run = save_small_student(tmp_path / "small")
    table = compare_costs([run], teachers=["dinov2:tiny"], device="cpu", passes=2)
    assert [each.kind for each in table.costs] == ["student", "teacher"]
    assert all(each.parameters and each.gflops for each in table.costs)


def test_no_passes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--passes is at least 1"):
        measure_cost(tmp_path, passes=0)
