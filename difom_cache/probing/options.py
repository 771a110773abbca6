"""The options of `difom-cache probe`."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from difom_cache.base.options import Config, Count, Opt, SomeShare

StridePx = Annotated[float, Field(ge=1, le=16_384)]


class ProbeConfig(Config):
    """What `difom-cache probe` does."""

    cache: Annotated[Path, Opt(argument=True)] = Path("feats")
    "Folder of the cache; it holds pictures and masks."
    teachers: Annotated[tuple[str, ...], Field(min_length=1)]
    "Teachers in the cache, by label, or by name where there is one variant; all their taps are read."
    labels: SomeShare = 1.0
    "Share of the masks of training and validation records; those that train are learnt from."
    labels_seed: Count = 0
    "Of the choice of masks and of the folds."
    folds: Annotated[int, Field(ge=2, le=10_000)] = 5
    "Parts of the labelled groups; each part's logits come from the masks of the others."
    head: Annotated[Literal["decoder", "linear", "3x3"] | None, Opt(default="decoder")] = None
    "A small decoder; or from a cell's own features, or those of its neighbors too. A probe that is there keeps its own."
    stride: StridePx | None = None
    "Of the logits, image px; by default a quarter of the finest tap's, at least 4, or, without a decoder, the finest tap's."
    name: str | None = None
    "Of the column; by default teachers, percent of masks and seed, as in dinov2-small-probe-l10-s0."
