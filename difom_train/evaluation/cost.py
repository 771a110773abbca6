"""What a network costs: parameters, floating-point operations, and time a picture on this device."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from difom_cache.base.errors import SettingsError
from difom_cache.base.hardware import explain_memory, name_device, resolve_device
from difom_cache.base.options import read_call
from difom_cache.base.progress import track
from difom_cache.base.text import format_table
from difom_train.commands import CostConfig
from difom_train.evaluation.published_costs import PublishedCost, read_published_costs
from difom_train.inference.segmenter import TEACHER_PREFIX, StudentSegmenter, load_segmenter
from difom_train.students.base import count_parameters
from difom_train.students.outside import StudentSources

if TYPE_CHECKING:
    from difom_train.keywords import CostKeywords

WARM_UP_PASSES = 3  # the first passes choose kernels and fill caches


@dataclass(frozen=True)
class Cost:
    """One network at batch 1.

    Attributes:
        name: of the run, or the teacher's spec.
        kind: "student" or "teacher".
        input_px: side of its input.
        parameters: None where the network is not a PyTorch one (ONNX).
        gflops: of one forward pass, a multiplication and an addition counted as two; None as above.
        latency_p50_ms: median time of a pass.
        latency_p95_ms: 95th percentile.
        frames_per_s: passes in a second, from their mean time.
        device: what it ran on.
        threads: of PyTorch on the CPU.
    """

    name: str
    kind: str
    input_px: int
    parameters: int | None
    gflops: float | None
    latency_p50_ms: float
    latency_p95_ms: float
    frames_per_s: float
    device: str
    threads: int

    def words(self) -> list[str]:
        """Return input size, parameters, GFLOPs, times and rate as they stand in a table."""
        return [
            str(self.input_px),
            "unknown" if self.parameters is None else f"{self.parameters / 1e6:.2f}",
            "unknown" if self.gflops is None else f"{self.gflops:.2f}",
            f"{self.latency_p50_ms:.1f}",
            f"{self.latency_p95_ms:.1f}",
            f"{self.frames_per_s:.1f}",
        ]


@dataclass(frozen=True)
class CostTable:
    """Costs of students and teachers on one device, and models of the literature to set them against."""

    costs: tuple[Cost, ...]
    published: tuple[PublishedCost, ...] = ()

    def ratios(self) -> dict[str, dict[str, float]]:
        """Return student name to how many times all teachers together cost: parameters, gflops, time."""
        teachers = [cost for cost in self.costs if cost.kind == "teacher"]
        if not teachers:
            return {}
        ratios = {}
        for student in (cost for cost in self.costs if cost.kind == "student"):
            ratio = {"time": sum(t.latency_p50_ms for t in teachers) / student.latency_p50_ms}
            if student.parameters and all(t.parameters for t in teachers):
                ratio["parameters"] = sum(t.parameters or 0 for t in teachers) / student.parameters
            if student.gflops and all(t.gflops for t in teachers):
                ratio["gflops"] = sum(t.gflops or 0 for t in teachers) / student.gflops
            ratios[student.name] = ratio
        return ratios

    def render(self) -> str:
        """Return a line a network, and a line a student on the ratio to all teachers together."""
        rows = [["network", "input px", "M parameters", "GFLOPs", "p50 ms", "p95 ms", "frames/s"]]
        rows += [[f"{cost.name} ({cost.kind})", *cost.words()] for cost in self.costs]
        lines = [format_table(rows), ""]
        if self.costs:
            lines.append(
                f"batch 1 on {self.costs[0].device}, {self.costs[0].threads} threads; 1 multiply-add = 2 FLOPs"
            )
        for name, ratio in self.ratios().items():
            words = ", ".join(f"{value:.1f} x the {what}" for what, value in ratio.items())
            lines.append(f"the teachers together cost {words} of {name}")
        for student in (cost for cost in self.costs if cost.kind == "student" and cost.gflops and self.published):
            lines += ["", *self._render_published(student)]
        return "\n".join(lines)

    def against_published(self, student: Cost) -> list[dict[str, Any]]:
        """Return, for each published model, its cost at the student's input size and the ratios both ways."""
        return [
            {
                "model": model.model,
                "parameters_m": model.parameters_m,
                "gflops": model.gflops_at(student.input_px),
                "published_at_px": model.input_px,
                "model_over_student": model.gflops_at(student.input_px) / student.gflops,
                "student_over_model": student.gflops / model.gflops_at(student.input_px),
                "source": model.source,
            }
            for model in self.published
            if student.gflops
        ]

    def _render_published(self, student: Cost) -> list[str]:
        rows = [["published model", "M parameters", "GFLOPs", f"x {student.name}", f"{student.name} x"]]
        for row in self.against_published(student):
            mark = "" if row["published_at_px"] == student.input_px else " *"
            rows.append(
                [
                    row["model"],
                    f"{row['parameters_m']:.2f}",
                    f"{row['gflops']:.2f}{mark}",
                    f"{row['model_over_student']:.2f}",
                    f"{row['student_over_model']:.2f}",
                ]
            )
        sources = "; ".join(dict.fromkeys(model.source for model in self.published))
        return [
            format_table(rows),
            f"as published, at {student.input_px} px (* scaled by area from another size): {sources}",
        ]

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        students = [cost for cost in self.costs if cost.kind == "student" and cost.gflops]
        return {
            "costs": [asdict(cost) for cost in self.costs],
            "teachers_over_student": self.ratios(),
            "published": {student.name: self.against_published(student) for student in students},
        }


@explain_memory("Give the GPU to this command alone, or choose --device cpu")
def compare_costs(
    runs: Sequence[Path | str] | CostConfig = (), *, student: StudentSources = None, **options: "Unpack[CostKeywords]"
) -> CostTable:
    """Measure students and teachers one after the other.

    Args:
        runs: run folders, or the config of the call.
        student: for runs of your own students (see `load_student`).
        **options: as the signature lists them. A teacher's random weights cost the same as others, so none are fetched.
    """
    config = read_call(CostConfig, options, runs=runs or None)
    networks = [*config.runs, *(f"{TEACHER_PREFIX}{spec}" for spec in config.teachers)]
    bar = track(networks, "timing", "network")
    own = config.student if student is None else student
    costs = tuple(measure_cost(each, device=config.device, passes=config.passes, student=own) for each in bar)
    return CostTable(costs, read_published_costs())


def measure_cost(
    network: Path | str,
    *,
    device: str = "auto",
    passes: int = 30,
    student: StudentSources = (),
) -> Cost:
    """Return what one network costs at its input size and batch 1.

    Args:
        network: a run folder, "teacher:SPEC" or "probe:CACHE/LABEL".
        device: "auto", "cpu" or "cuda".
        passes: timed passes; the percentiles are over these.
        student: for a run of your own student (see `load_student`).
    """
    if passes < 1:
        raise SettingsError(f"--passes is at least 1, found {passes}")
    chosen = str(resolve_device(device))
    if str(network).startswith(TEACHER_PREFIX):
        name, kind = str(network).removeprefix(TEACHER_PREFIX), "teacher"
        run, module, input_px, chosen = _load_teacher(name, device)
    else:
        segmenter = load_segmenter(network, device=chosen, student=student)
        name, input_px, run = segmenter.name, segmenter.input_px, segmenter.logits
        kind, module = ("student", segmenter.student) if isinstance(segmenter, StudentSegmenter) else ("teacher", None)
    pixels = torch.rand(1, 3, input_px, input_px, generator=torch.Generator().manual_seed(0)).to(chosen)
    times_ms = time_passes(run, pixels, passes)
    return Cost(
        name=name,
        kind=kind,
        input_px=input_px,
        parameters=count_parameters(module) if module is not None else None,
        gflops=count_flops(run, pixels) / 1e9 if module is not None else None,
        latency_p50_ms=float(np.percentile(times_ms, 50)),
        latency_p95_ms=float(np.percentile(times_ms, 95)),
        frames_per_s=1000 / float(times_ms.mean()),
        device=name_device(torch.device(chosen)),
        threads=torch.get_num_threads(),
    )


@torch.inference_mode()
def time_passes(run: Callable[[Tensor], Any], pixels: Tensor, passes: int) -> np.ndarray:
    """Return the milliseconds of each of some passes, (passes,), after a warm-up."""
    times_ms = []
    for number in range(WARM_UP_PASSES + passes):
        _finish(pixels.device)
        started = time.perf_counter()
        run(pixels)
        _finish(pixels.device)
        if number >= WARM_UP_PASSES:
            times_ms.append((time.perf_counter() - started) * 1e3)
    return np.array(times_ms)


@torch.no_grad()
def count_flops(run: Callable[[Tensor], Any], pixels: Tensor) -> int:
    """Return the floating-point operations of one pass: convolutions, matrix products and attention."""
    with FlopCounterMode(display=False) as counter:
        run(pixels)
    return int(counter.get_total_flops())


def _load_teacher(spec: str, device: str) -> tuple[Callable[[Tensor], Any], nn.Module | None, int, str]:
    """Return a teacher's forward pass, its PyTorch module if it has one, its input size, and where it stands."""
    from difom_cache import build_teacher  # late: it brings the teacher's own library
    from difom_cache.teachers import parse_teacher, place_teacher

    weights = "hub" if spec.startswith(("onnx:", "student:")) else "random"
    chosen = place_teacher(parse_teacher(spec).name, device)
    teacher = build_teacher(spec, weights=weights, device=chosen)
    network = getattr(teacher, "network", None)
    return teacher.features, network if isinstance(network, nn.Module) else None, teacher.spec.input_px, chosen


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
