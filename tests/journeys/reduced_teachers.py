"""`difom-cache` with the four published default teachers made small: the same names, repositories and files, less to compute.

As a script it loads the libraries once, without running any network, and then reads one order a line: {"args": of the
command, "cache": of the hub's client, "errors": the file for what goes to stderr}. Each is run in a process of its own,
and answered with its exit code.
"""

import json
import os
import sys
from dataclasses import replace
from functools import partial

import old_layouts as old
import torch
from huggingface_hub import constants
from transformers import Dinov2Config

from difom_cache import extract as _  # noqa: F401  loaded before the children are forked
from difom_cache.cli import main
from difom_cache.teachers import dinov2, pixel_level, sam

SAM = old.Encoder(48, 3, 3, 352, 32, (0, 1, 2), 32, 32)
DINOV2 = old.Encoder(48, 2, 3, 518)
SWIN = replace(old.SWIN_L, width=12, depths=(1, 1, 2, 1), heads=(1, 2, 3, 4), channels=64, vocabulary=99, text_layers=1)


def register() -> None:
    """Put the small networks in the place of the published ones."""
    own = sam.VARIANTS["vit_b"]
    sam.VARIANTS["vit_b"] = replace(
        own,
        width=SAM.width,
        depth=SAM.depth,
        heads=SAM.heads,
        global_blocks=(0, 1, 2, 2),
        input_px=SAM.image_px,
        neck_channels=SAM.neck,
    )
    own_size = dinov2.FAMILY.sizes["base"]
    config = partial(
        Dinov2Config,
        hidden_size=DINOV2.width,
        num_hidden_layers=DINOV2.depth,
        num_attention_heads=DINOV2.heads,
        image_size=DINOV2.image_px,
        patch_size=14,
    )
    dinov2.FAMILY.sizes["base"] = own_size._replace(config=config)
    sizes = pixel_level.ONEFORMER.sizes
    sizes["swin_l"] = sizes["swin_l"]._replace(input_px=SAM.image_px)
    pixel_level.MASK2FORMER.sizes["swin_l"] = pixel_level.MASK2FORMER.sizes["swin_l"]._replace(input_px=SAM.image_px)
    pixel_level.SWINS["swin_l"] = replace(
        pixel_level.SWINS["swin_l"],
        width=SWIN.width,
        depths=SWIN.depths,
        heads=SWIN.heads,
        decoder_channels=SWIN.channels,
    )


def run(args: list[str], cache: str, errors: str) -> int:
    """Return the exit code of the command, run in a child."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 1
    try:
        os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
        os.dup2(2, 1)
        constants.HF_HUB_CACHE = cache
        sys.argv = ["difom-cache", *args]
        main()
        code = 0
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    torch.set_num_threads(1)  # a process with threads is not safe to fork
    register()
    for line in sys.stdin:
        print(run(**json.loads(line)), flush=True)
