"""A teacher's network as OpenVINO runs it: the same weights, taps and normalisation, faster on a CPU."""

import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from difom_cache.base.errors import DeviceError, SettingsError, TeacherError, install_extra
from difom_cache.base.hardware import resolve_device
from difom_cache.teachers.base import Teacher, TeacherSpec, has_openvino
from difom_cache.teachers.network import NetworkTeacher
from difom_cache.teachers.preprocess import check_pixels, normalise

_HINTS = {"float32": "f32", "bfloat16": "bf16"}
# Of the error's length over that of the feature about its mean; measured: float32 1e-5, bfloat16 0.04.
_ALLOWED = {"float32": 1e-3, "bfloat16": 0.15}
_REASON_CHARS = 300


@functools.cache
def _core() -> Any:
    """Return this process' one `openvino.Core`, which is never let go of.

    Each core's CPU plugin sets the thread's stack for signal handlers and, when it goes, puts back what it found. Of two
    that do not go in the reverse order of their coming, the last puts back memory that is unmapped already, and the next
    signal that has a handler (Ctrl-C, SIGTERM, the end of a child) kills the process.
    """
    import openvino

    return openvino.Core()


def cpu_capabilities() -> list[str]:
    """Return what OpenVINO says that this CPU computes in, such as FP32 and BF16."""
    return list(_core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers' remarks off the terminal: the tracer reads all that a model has, also a loss that it lacks.

    Unlike `library.quiet` it loads no transformers: many teachers do without.
    """
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


class _Taps(nn.Module):
    """Pixels in [0, 1] in, the maps of some taps out, in request: what a graph can be made of."""

    def __init__(self, network: nn.Module, spec: TeacherSpec) -> None:
        super().__init__()
        self.network, self._mean, self._std = network, spec.mean, spec.std
        self.names = tuple(dict.fromkeys(tap.native for tap in spec.taps))

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        maps = self.network(normalise(pixels, self._mean, self._std))
        return tuple(maps[name] for name in self.names)


class OpenVinoTeacher:
    """A teacher on the CPU whose network was compiled by OpenVINO for the first batch that it is shown, and for larger ones.

    A smaller batch, such as the last, is filled up with black: compiling costs more than a batch, and as much memory again.

    Raises:
        SettingsError: OpenVINO is not installed, the teacher brings its own runtime, or `torch.compile` was asked for.
        DeviceError: the teacher stands on a GPU, or computes in bfloat16, which this CPU has not.
    """

    def __init__(self, teacher: Teacher) -> None:
        if not has_openvino():
            raise SettingsError(f"--backend openvino: OpenVINO is not installed; {install_extra('openvino')}")
        if not isinstance(teacher, NetworkTeacher) or teacher.spec.options.get("compile"):
            raise SettingsError(
                f"--backend openvino: {teacher.spec.label} has a runtime of its own, or is compiled by PyTorch; use "
                "--backend auto"
            )
        if teacher.device.type != "cpu":
            raise DeviceError(f"--backend openvino runs on the CPU, not on {teacher.device}; add --device cpu")
        if teacher.spec.precision == "bfloat16" and "BF16" not in cpu_capabilities():
            raise DeviceError(
                "--precision bfloat16: this CPU has none, and OpenVINO would compute float32 in its place; leave it out, or use "
                "--backend torch"
            )
        self.spec = teacher.spec
        self._taps = _Taps(teacher.network, teacher.spec)
        self._compiled: dict[int, Any] = {}

    def to(self, device: str | torch.device) -> "OpenVinoTeacher":
        """Return the teacher, which stays on the CPU.

        Raises:
            DeviceError: another device was asked for.
        """
        if resolve_device(device).type != "cpu":
            raise DeviceError(f"OpenVINO runs teachers on the CPU, not on {device}; use --backend torch")
        return self

    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return float32 maps (B, C, h, w) of float32 pixels (B, 3, S, S) in [0, 1], by native tap name."""
        check_pixels(pixels, self.spec.input_px)
        shown = len(pixels)
        batch = min((size for size in self._compiled if size >= shown), default=shown)
        if batch not in self._compiled:
            self._compiled[batch] = self._compile(batch)
        if batch > shown:
            pixels = torch.cat([pixels, pixels.new_zeros((batch - shown, *pixels.shape[1:]))])
        found = self._compiled[batch](pixels.numpy(), share_inputs=True)
        return {name: torch.from_numpy(found[place][:shown].copy()) for place, name in enumerate(self._taps.names)}

    @torch.no_grad()
    def check(self, batch: int) -> None:
        """Return if the compiled network gives PyTorch's features of a picture of coloured blots.

        In white noise all cells look alike to many networks, and what is left about their mean is rounding.

        Raises:
            TeacherError: it cannot be compiled, or gives others.
        """
        side = self.spec.input_px
        blots = torch.rand((batch, 3, 8, 8), generator=torch.Generator().manual_seed(0))
        pixels = interpolate(blots, (side, side), mode="bilinear")
        found, expected = self.features(pixels), dict(zip(self._taps.names, self._taps(pixels[:1]), strict=True))
        for name, feature in expected.items():
            about_mean = feature - feature.mean((2, 3), keepdim=True)
            error = float((found[name][:1] - feature).norm() / about_mean.norm().clamp_min(1e-12))
            if not error <= _ALLOWED[self.spec.precision]:
                raise TeacherError(
                    f"{self.spec.label}: OpenVINO gives other features than PyTorch at {name} (relative error {error:.2g}); "
                    "use --backend torch"
                )

    @torch.no_grad()
    def _compile(self, batch: int) -> Any:
        from openvino.frontend import FrontEndManager
        from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

        side = self.spec.input_px
        example = torch.zeros((batch, 3, side, side))
        try:
            with warnings.catch_warnings(), _quiet():
                warnings.simplefilter("ignore")  # the tracer's, of every branch; `check` looks at what came out
                # What `openvino.convert_model` does; that one also asks for consent to send data home, and sends it.
                frontend = FrontEndManager().load_by_framework("pytorch")
                # PyTorch's own check would trace the network twice more, over half of a start; `check` says more for less.
                tracing = {"check_trace": False}
                decoder = TorchScriptPythonDecoder(self._taps, example_input=(example,), trace_kwargs=tracing)
                model = frontend.convert(frontend.load(decoder))
            model.reshape(list(example.shape))
            hints = {
                "INFERENCE_PRECISION_HINT": _HINTS[self.spec.precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,  # several workers would be pinned to the same cores
            }
            return _core().compile_model(model, "CPU", hints)
        except Exception as error:  # converter and compiler have errors of many families
            reason = " ".join(str(error).split())[:_REASON_CHARS] or type(error).__name__
            raise TeacherError(
                f"{self.spec.label}: OpenVINO cannot take this network ({reason}); use --backend torch"
            ) from error
