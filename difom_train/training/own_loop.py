"""The distiller by itself, for a training loop of one's own: what a student shows and a batch go in, loss terms come out."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from difom_cache.base.errors import SettingsError
from difom_train.config import DataConfig, DistillConfig, TrainConfig, read_recipe
from difom_train.data.caches import JointCache, require_taps
from difom_train.data.feed import Feed, select_rows
from difom_train.data.loader import Loader
from difom_train.data.own_batches import CacheSource, open_sources
from difom_train.data.stage import PICTURES, choose_stage
from difom_train.distill.base import Distiller
from difom_train.distill.catalogue import build_distiller as build_part
from difom_train.students.base import Student, StudentOutput
from difom_train.training.masks import choose_terms

CALIBRATION_PICTURES = 256
LOGITS = "logits"
_NECK_LAYERS = ("z1", "z2")
_BATCH = 16


class LoopDistiller(nn.Module):
    """Holds a student to the cached features of its pictures; its heads are trained beside the student, and thrown away.

    Attributes:
        taps: full names of what a batch must hold: give them to `CacheLoader` or `CacheDataset`.
        weights: name of each term to its weight, which terms carry already.
    """

    def __init__(self, part: Distiller, levels: Sequence[str]) -> None:
        super().__init__()
        self.part, self._levels = part, tuple(levels)

    @property
    def taps(self) -> tuple[str, ...]:
        return self.part.taps

    @property
    def weights(self) -> dict[str, float]:
        return dict(self.part.weights)

    def describe(self) -> list[str]:
        """Return lines that say what teaches what."""
        return self.part.describe()

    def forward(self, levels: StudentOutput | Mapping[str, Tensor], batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weighted terms by name, each a mean over the batch; their sum is the loss of the distillation.

        Args:
            levels: what `Student.forward_train` returned of the batch's pictures; or level name to map (B, C, h, w), with
                "logits" (B, 1, H, W), and with "z1" and "z2" of a neck.
            batch: of `CacheLoader` or a `DataLoader(CacheDataset(...))`, on the same device: `<tap>/code` and `<tap>/scale`,
                or `<tap>` decoded, for each of `taps`, and perhaps `valid` (B, H, W).

        Raises:
            SettingsError: a level or a tap is missing.
        """
        absent = [tap for tap in self.taps if tap not in batch and f"{tap}/code" not in batch]
        if absent:
            raise SettingsError(f"the batch lacks the tap {absent[0]}; read it with taps=distiller.taps")
        output = levels if isinstance(levels, StudentOutput) else self._collect(levels)
        targets = self.part.targets(dict(batch))
        terms = self.part.terms(output, targets, batch.get("valid"))
        return {name: self.part.weights[name] * term.mean() for name, term in terms.items()}

    def _collect(self, levels: Mapping[str, Tensor]) -> StudentOutput:
        absent = [name for name in (*self._levels, LOGITS) if name not in levels]
        if absent:
            raise SettingsError(f"levels lack {absent[0]!r}; found {', '.join(levels)}")
        return StudentOutput(
            logits=[levels[LOGITS]],
            levels={name: levels[name] for name in self._levels},
            neck={name: levels[name] for name in _NECK_LAYERS if name in levels},
        )


def build_distiller(
    config: TrainConfig | DistillConfig | str,
    cache: CacheSource | Sequence[CacheSource],
    student: Student,
    *,
    input_px: int | None = None,
    seed: int = 0,
) -> LoopDistiller:
    """Return a distiller for a loop of one's own, its targets fitted from the cache, on the CPU.

    Where it learns from teachers' logits, these are calibrated on up to 256 masks, of the budget where
    `config` has one: validation masks, or train masks where there are none.

    Args:
        config: a recipe's name or file, what `read_recipe` returned, or a [distill] table.
        cache: a cache, open or by its folder, or several.
        student: that it will hold; its neck is the one that the kind needs.
        input_px: side of the student's input; None as the cache's pictures.
        seed: of the heads' first weights.

    Raises:
        SettingsError: no such recipe or teacher, one that distils nothing or needs a loop of its own, or a student without the
            neck.
        CacheIncompleteError: the cache lacks a tap that is needed.
        TeacherError: a tap never varies, or logits that do not rise where the masks are.
    """
    config = read_recipe(config) if isinstance(config, str) else config
    options, data = (config.distill, config.data) if isinstance(config, TrainConfig) else (config, DataConfig())
    if options.kind in ("none", "mean_teacher"):
        why = (
            "distils nothing" if options.kind == "none" else "learns from its own averaged weights, which `train` keeps"
        )
        raise SettingsError(
            f"distill.kind {options.kind!r} {why}; a distiller for your own loop learns from cached teachers"
        )
    joint = JointCache(open_sources(cache))
    options = choose_terms(options, joint, data, seed=seed)
    part = build_part(options, cache=joint, student=student, input_px=input_px or joint.picture_px, seed=seed)
    if part.needs_calibration:
        _calibrate(part, joint, data, seed)
    return LoopDistiller(part, list(student.levels))


@torch.no_grad()
def _calibrate(part: Distiller, cache: JointCache, data: DataConfig, seed: int) -> None:
    usable = cache.finished_rows(part.taps, pictures=True)
    selection = select_rows(cache, data, seed=seed, usable=usable)
    require_taps(cache, selection.train, part.taps, allow_partial=False)
    groups, device = [PICTURES, *part.taps], torch.device("cpu")
    stage = choose_stage("disk", cache, used=selection.train, groups=groups, device=device)
    options = data.model_copy(update={"batch_size": _BATCH})
    feed = Feed(cache, Loader(stage, _BATCH, device), selection, options, seed=seed)
    part.calibrate(batch.tensors for batch in feed.calibration_batches(part.taps, CALIBRATION_PICTURES))
