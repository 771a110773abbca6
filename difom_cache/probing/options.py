"""The options of `difom-cache probe`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from difom_cache.base.options import Access, Config, Count, Opt, SomeShare

StridePx = Annotated[float, Field(ge=1, le=16_384)]


class ProbeConfig(Config):
    """What `difom-cache probe` does."""

    cache: Annotated[Path, Opt(argument=True)] = Path("feats")
    "Folder of a cache that holds images and masks."
    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    "Teachers in the cache, by label, or by name where there is one variant; all their taps are read."
    labels: SomeShare = 1.0
    "Share of the masks of training and validation records to use; heads learn from the training ones."
    labels_seed: Count = 0
    "Random seed for the choice of masks and folds."
    folds: Annotated[int, Field(ge=2, le=10_000)] = 5
    "Number of folds; the logits of each fold come from a head fitted to the masks of the others."
    head: Annotated[Literal["decoder", "linear", "3x3"] | None, Opt(default="decoder")] = None
    "A small decoder, or a linear or 3x3 convolution on single cells. An existing probe keeps its own."
    stride: StridePx | None = None
    "Stride of the logits in image px; by default that of the finest tap, and with a decoder a quarter of it, at least 4."
    name: str | None = None
    "Name of the new column; by default teachers, percent of masks and seed, as in dinov2-small-probe-l10-s0."
    access: Access = "auto"
    "How the cache is read; auto: map on local disks, read elsewhere."
