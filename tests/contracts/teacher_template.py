"""A whole teacher in one file, to copy: the contract tests run it beside the built-in ones.

In a package of your own, name `build` as an entry point of the group `difom.teachers`; then `--teacher edges` finds it.
"""

import torch
from torch import Tensor, nn

from difom_cache.teachers import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    NativeTap,
    NetworkTeacher,
    TapNetwork,
    TapRequest,
    TeacherRequest,
    TeacherSpec,
    Weights,
    assemble,
    check_input_px,
    digest_tensors,
    fill_random,
    load_exact,
    locate,
    read_tensors,
)


class EdgeTaps(TapNetwork):
    """Two convolutions, read after each."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 8, kernel_size=8, stride=8)
        self.coarse = nn.Conv2d(8, 16, kernel_size=2, stride=2)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the map (B, C, h, w) of each kept tap, of normalised pixels (B, 3, S, S)."""
        fine = torch.tanh(self.fine(pixels))
        maps = {"fine": fine, "coarse": self.coarse(fine)}
        return {tap: maps[tap] for tap in self.taps}


def put_weights(network: EdgeTaps, weights: str) -> Weights:
    """Put `weights` ("random", "hub", "hub@REVISION" or a path) into the network, and return what to record of them."""
    source = weights
    if weights == "random":
        fill_random(network, "edges")
    else:
        place, source = locate(weights, "edges", "")  # "OWNER/MODEL" in place of "" where the hub has them
        load_exact(network, read_tensors(place, "edges"), place, "edges")
    return Weights(source, digest_tensors(network.state_dict()))


def build(request: TeacherRequest) -> NetworkTeacher:
    """Return the teacher that `request` asks for."""
    input_px = request.input_px or 352
    check_input_px(input_px, 16, "edges")  # sides are multiples of 16 px
    with torch.random.fork_rng(devices=[]):  # PyTorch's own draw below must not move the user's generator
        network = EdgeTaps()
    spec = TeacherSpec(
        label="edges",
        name="edges",
        variant=request.variant,
        input_px=input_px,
        weights=put_weights(network, request.weights),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        native={"fine": NativeTap("fine", 8, 8), "coarse": NativeTap("coarse", 16, 16)},
        taps=(TapRequest("fine", 8), TapRequest("coarse", 16)),  # unless the user says otherwise
        licence="Apache-2.0",
    )
    return assemble(request, spec, network)
