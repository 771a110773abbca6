"""What a recipe says about distillation."""

from dataclasses import dataclass

from difom_cache.errors import SettingsError, name_nearest

KINDS: dict[str, str] = {
    "none": "segmentation only",
    "difom": "low and high band of all teachers at the bottleneck, both layers on the path to the decoder",
    "paper": "the paper's literal wiring: L1 with ReLU, L2 of L1",
    "published": "the released notebook: trainable fusion on the target side, layers that the decoder never uses",
    "multiscale": "every level against the taps of its stride, and the teachers' own logits",
}
NECK_OF_KIND: dict[str, str] = {"difom": "difom", "paper": "paper"}


@dataclass(frozen=True)
class DistillSettings:
    """The [distill] table of a recipe.

    Attributes:
        kind: one of `KINDS`.
        teachers: labels of the cache's teachers to learn from; empty means all of them.
        low_weight: of the low-frequency term (difom, paper, published, and multiscale with `bands`).
        high_weight: of the high-frequency term.
        feature_weight: of multiscale's feature term.
        logits_weight: of multiscale's term on the teachers' logits; 0 leaves their logits unread.
        channels: of the target: in all for difom and paper, at most so many for each tap for multiscale.
        bands: multiscale only: also compare the low and the high band of each pair.
    """

    kind: str = "none"
    teachers: tuple[str, ...] = ()
    low_weight: float = 0.1
    high_weight: float = 0.1
    feature_weight: float = 1.0
    logits_weight: float = 1.0
    channels: int = 256
    bands: bool = False

    def __post_init__(self) -> None:
        neck_for(self.kind)
        for name in ("low_weight", "high_weight", "feature_weight", "logits_weight"):
            if getattr(self, name) < 0:
                raise SettingsError(f"distill.{name} is at least 0, found {getattr(self, name)}")
        if self.channels < 1:
            raise SettingsError(f"distill.channels is at least 1, found {self.channels}")


def neck_for(kind: str) -> str | None:
    """Return the neck that a student needs for this kind of distillation."""
    if kind not in KINDS:
        raise SettingsError(name_nearest("kind of distillation", kind, list(KINDS)))
    return NECK_OF_KIND.get(kind)
