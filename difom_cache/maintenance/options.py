"""The options of `difom-cache verify`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from difom_cache.base.options import CommandConfig, Count, Opt
from difom_cache.data.options import DataOptions


class VerifyConfig(CommandConfig, DataOptions):
    """A cache against its own promises, and against its teachers."""

    GROUPS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "Data, for --recompute": ("data", "images", "masks", "group_by", "every", "unlabelled")
    }

    cache: Annotated[Path, Opt(argument=True)] = Path("feats")
    "Folder of the cache."
    recompute: Count = 0
    "Number of random views to encode again and compare."
    equivariance: bool = False
    "Measure how much accuracy warping cached maps to other views would cost."
    teacher: Annotated[tuple[str, ...], Opt(whole=True)] = ()
    "NAME[:VARIANT][@PX] of teachers to compare; all by default."
    weights: Annotated[tuple[str, ...], Opt(whole=True)] = ()
    "Weights of a teacher, LABEL=WEIGHTS or LABEL=FILE; may repeat. By default those that `extract` used."
    device: str = "cpu"
    "cpu, cuda or cuda:N."
    seed: Count = 0
    "Random seed for the choice of views."
    repair: bool = False
    "First rewrite everything that can be derived from the identities and records.csv."
