"""A teacher that is a PyTorch network: preprocessing before it, float32 maps after it."""

from typing import Any

import torch
from torch import Tensor, nn

from difom_cache.base.hardware import resolve_device
from difom_cache.teachers.base import TapRequest, TeacherRequest, TeacherSpec, complete_spec, versions
from difom_cache.teachers.precision import compute_in
from difom_cache.teachers.preprocess import check_pixels, normalise
from difom_cache.teachers.weights import is_outline

PRODUCTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
"""Modules whose weights autocast rounds to bfloat16."""


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
        if self.device.type == "cuda" and self.spec.precision == "bfloat16":  # once; autocast would in every batch
            for name, module in self.network.named_modules():
                if isinstance(module, PRODUCTS) and not name.endswith("patch_embeddings"):
                    module.to(torch.bfloat16)  # DINOv3 gives its rotary positions the type of that one
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


def assemble(request: TeacherRequest, spec: TeacherSpec, network: TapNetwork) -> NetworkTeacher:
    """Return the teacher that `request` asks for.

    Args:
        request: says taps, precision, device and whether the network is compiled.
        spec: what the teacher's file knows: label, native and default taps, weights, licence, the libraries beside torch.
        network: with the weights in it.
    """
    device = resolve_device(request.device)
    spec = complete_spec(request, spec)
    network.keep(tuple(dict.fromkeys(tap.native for tap in spec.taps)))
    if is_outline():
        return NetworkTeacher(spec, network)
    if request.compile:
        network.compile(dynamic=False)
    return NetworkTeacher(spec, network).to(device)


def NetworkFacts(*, default_taps: tuple[TapRequest, ...], packages: tuple[str, ...], **facts: Any) -> TeacherSpec:
    """Return the record of a teacher whose builder describes it as those of the release before did."""
    return TeacherSpec(taps=default_taps, libraries=versions(*packages), **facts)
