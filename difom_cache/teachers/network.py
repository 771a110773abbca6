"""A teacher that is a PyTorch network: preprocessing before it, float32 maps after it."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor, nn

from difom_cache.base.hardware import resolve_device
from difom_cache.teachers.base import RANDOM, NativeTap, TapRequest, TeacherRequest, TeacherSpec, choose_taps
from difom_cache.teachers.precision import compute_in
from difom_cache.teachers.preprocess import Triple, check_pixels, normalise
from difom_cache.teachers.weights import Weights, is_outline


@dataclass(frozen=True)
class NetworkFacts:
    """What a teacher's file says about its network; `assemble` adds what the request says.

    Attributes:
        label: the teacher's folder in a cache; `assemble` adds "-random" for random weights.
        name: in the catalogue.
        variant: the one that was built.
        input_px: side of the square input.
        mean: per channel.
        std: per channel.
        native: every place that can be read.
        default_taps: what is stored unless the user says otherwise.
        packages: distributions whose versions decide the features, beside torch.
        licence: of the weights.
        weights: where they came from and their digest.
        options: whatever else changes the numbers.
        seen_masks: SHA-256 of the mask files that the weights were trained on, where somebody kept them.
    """

    label: str
    name: str
    variant: str
    input_px: int
    mean: Triple
    std: Triple
    native: Mapping[str, NativeTap]
    default_taps: tuple[TapRequest, ...]
    packages: tuple[str, ...]
    licence: str
    weights: Weights
    options: Mapping[str, Any]
    seen_masks: frozenset[str] | None = None


class TapNetwork(nn.Module):
    """The contract of a network here: normalised pixels in, one map for each tap named in `taps` out."""

    taps: tuple[str, ...] = ()

    def keep(self, taps: tuple[str, ...]) -> None:
        """Give these native taps from now on, and let go of what comes after the deepest of them."""
        self.taps = taps


class NetworkTeacher:
    """A frozen PyTorch network with its specification."""

    def __init__(self, spec: TeacherSpec, network: nn.Module) -> None:
        self.spec = spec
        self.network = network.eval().requires_grad_(False)
        self.device = torch.device("cpu")
        self._mean, self._std = torch.tensor(spec.mean), torch.tensor(spec.std)

    def to(self, device: str | torch.device) -> "NetworkTeacher":
        """Move the network to `device` and return the teacher.

        Raises:
            DeviceError: the device is absent.
        """
        self.device = resolve_device(device)
        self.network.to(self.device)
        self._mean, self._std = self._mean.to(self.device), self._std.to(self.device)
        return self

    @torch.no_grad()
    def features(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return float32 maps (B, C, h, w) of float32 pixels (B, 3, S, S) in [0, 1], by native tap name."""
        check_pixels(pixels, self.spec.input_px)
        bfloat16 = self.spec.precision == "bfloat16"
        with compute_in(self.spec.precision), torch.autocast(self.device.type, torch.bfloat16, enabled=bfloat16):
            maps = self.network(normalise(pixels, self._mean, self._std))
        return {name: maps[name].float() for name in dict.fromkeys(tap.native for tap in self.spec.taps)}


def assemble(request: TeacherRequest, facts: NetworkFacts, network: TapNetwork) -> NetworkTeacher:
    """Return the teacher that `request` asks for."""
    device = resolve_device(request.device)
    taps = choose_taps(request, dict(facts.native), facts.default_taps, facts.input_px)
    network.keep(tuple(dict.fromkeys(tap.native for tap in taps)))
    spec = TeacherSpec(
        label=f"{facts.label}-{RANDOM}" if facts.weights.source == RANDOM else facts.label,
        name=facts.name,
        variant=facts.variant,
        input_px=facts.input_px,
        weights_digest=facts.weights.digest,
        weights_source=facts.weights.source,
        mean=facts.mean,
        std=facts.std,
        interpolation="bilinear",
        taps=taps,
        native=dict(facts.native),
        libraries={name: version(name) for name in ("torch", *facts.packages)},
        licence=facts.licence,
        precision=request.chosen_precision,
        seen_masks=facts.seen_masks,
        options={**facts.options, **({"compile": True} if request.compile else {})},
    )
    if is_outline():
        return NetworkTeacher(spec, network)
    if request.compile:
        network.compile(dynamic=False)
    return NetworkTeacher(spec, network).to(device)
