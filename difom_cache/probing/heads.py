"""The heads of a probe, one a fold: fitted, kept beside the column's identity, asked for logits."""

from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from difom_cache.base.atomic import write_once
from difom_cache.base.errors import CacheDamagedError
from difom_cache.base.files import refuse_special
from difom_cache.base.progress import track
from difom_cache.probing import conv_head, decoder_head, linear_head
from difom_cache.probing.lesson import Lesson
from difom_cache.store.layout import HEADS

KINDS: dict[str, ModuleType] = {"decoder": decoder_head, "linear": linear_head, "3x3": conv_head}


@dataclass(frozen=True)
class Heads:
    """Tensors of all folds' heads by name, folds along the first axis; float32. `grid` is cells a side of their logits."""

    kind: str
    grid: int
    tensors: dict[str, Tensor]

    @property
    def digest(self) -> str:
        """SHA-256 of every tensor's name and little-endian bytes, in order of names."""
        digest = sha256()
        for name in sorted(self.tensors):
            digest.update(name.encode() + self.tensors[name].numpy().tobytes())
        return digest.hexdigest()

    def speak(self, features: Tensor, fold: NDArray[np.int64]) -> Tensor:
        """Return the logits (B, 1, G, G) of each row: its own fold's head, or the mean of all where it is in no fold.

        Args:
            features: (B, g, g, C), standardised.
            fold: (B,) the fold of each row's group; -1 for none.
        """
        own = torch.from_numpy(fold)
        logits = torch.empty((len(features), self.grid, self.grid))
        for number in own.unique().tolist():
            rows = own == number
            logits[rows] = self.mean(features[rows])[:, 0] if number < 0 else self._ask(number, features[rows])
        return logits[:, None]

    def mean(self, features: Tensor) -> Tensor:
        """Return the mean of all heads' logits, (B, 1, G, G)."""
        folds = len(next(iter(self.tensors.values())))
        return torch.stack([self._ask(number, features) for number in range(folds)]).mean(dim=0)[:, None]

    def _ask(self, number: int, features: Tensor) -> Tensor:
        head = {name: tensor[number] for name, tensor in self.tensors.items()}
        logits: Tensor = KINDS[self.kind].speak(head, features, self.grid)
        return logits


def fit_heads(lesson: Lesson, kind: str, seed: int, *, quiet: bool = True) -> Heads:
    """Return one head a fold, each fitted to the views of all other folds."""
    folds = track(range(lesson.folds), "fitting heads", "head", quiet=quiet)
    fitted = [KINDS[kind].fit(lesson, fold, seed) for fold in folds]
    return Heads(kind, lesson.grid, {name: torch.stack([head[name] for head in fitted]) for name in fitted[0]})


def write_heads(folder: Path, heads: Heads) -> Heads:
    """Keep the heads beside their column's identity; return those that lie there, ours or an earlier writer's."""
    tensors = {name: tensor.contiguous() for name, tensor in heads.tensors.items()}
    write_once(folder / HEADS, [save(tensors, metadata={"sha256": heads.digest})])
    return read_heads(folder, heads.kind, heads.grid)


def read_heads(folder: Path, kind: str, grid: int) -> Heads:
    """Return the heads beside a column's identity.

    Raises:
        FileNotFoundError: there are none.
        CacheDamagedError: they are not what was written.
    """
    path = folder / HEADS
    try:
        with safe_open(refuse_special(path), "pt") as file:
            heads = Heads(kind, grid, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (it is no mapping)
            wanted = (file.metadata() or {}).get("sha256")
        if heads.digest != wanted:
            raise SafetensorError("its numbers are not those of its digest")
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:
        raise CacheDamagedError(
            f"the heads in {path} cannot be read ({error}); copy the file again, or drop the column with "
            f"`difom-cache drop {folder.parent.parent} --teacher {folder.name}` and run `difom-cache probe` anew"
        ) from None
    return heads
