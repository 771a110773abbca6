"""Small networks under the names of published sizes, and their weights in a folder as `weights fetch --to` makes it.

As a program it is `difom-cache` with these networks: what a job script calls where no published weights are.
"""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Dinov2Model
from transformers.utils import logging

from difom_cache.teachers import Size, dinov2, sam

SAM = {
    name: sam.Variant(width, 4, 2, (0, 1, 2, 3), "a/repository", input_px=352, neck_channels=16)
    for name, width in (("vit_b", 16), ("vit_h", 24))
}
DINOV2 = partial(dinov2._config, 32, 4, 2, image_px=308)


def register(patch: Any) -> None:
    """Make sam:vit_b, sam:vit_h and dinov2:base mean the small networks.

    Args:
        patch: called with a dictionary, a key and a value, as `MonkeyPatch.setitem` is.
    """
    for name, variant in SAM.items():
        patch(sam.VARIANTS, name, variant)
    patch(dinov2.FAMILY.sizes, "base", Size(DINOV2, dinov2.FAMILY.sizes["base"].repository, 308))


def save_weights(folder: Path) -> Path:
    """Write weights of the registered networks below `folder`, one folder a teacher, and return it."""
    for name, variant in SAM.items():
        encoder = sam.plain_encoder(variant)
        sam.fill_random(encoder, f"stand-in {name}")
        (folder / f"sam-{name}").mkdir(parents=True)
        torch.save(encoder.state_dict(), folder / f"sam-{name}/sam_{name}.pth")
    logging.disable_progress_bar()
    model = Dinov2Model(DINOV2())
    sam.fill_random(model, "stand-in dinov2")
    model.save_pretrained(folder / "dinov2-base")
    return folder


if __name__ == "__main__":
    from difom_cache.cli import main

    register(lambda table, key, value: table.__setitem__(key, value))
    main()
