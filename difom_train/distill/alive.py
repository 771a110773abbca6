"""Whether a distillation is alive: a collapsed one has a loss that looks good and teaches nothing."""

from collections.abc import Mapping, Sequence

COLLAPSED_FRAC = 0.01  # of a variance's first value
UNEXPLAINED_FRAC = 0.01  # of the target's variance
VARIANCES = ("distill/target_var/", "distill/student_var/")
EXPLAINED = "distill/explained/"
LOGITS = "/logits@"


def find_collapse(first: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Return one line for each variance that has fallen under 1 % of its first value.

    Args:
        first: `Distiller.summarise` before or after the first epoch with distillation.
        now: the same, later.
    """
    return [
        f"{key} collapsed from {first[key]:.3g} to {value:.3g}: the student matches a target that says nothing"
        for key, value in now.items()
        if key.startswith(VARIANCES) and key in first and value < COLLAPSED_FRAC * first[key]
    ]


def find_unexplained(history: Sequence[Mapping[str, float]]) -> list[str]:
    """Return one line for each target of which the student has explained nothing in any epoch of `history`.

    A teacher's logits are left out: the student answers them with its own mask, which the labels shape as well, so a
    squared error above the target's variance says that the two differ in confidence, not that nothing is learnt.
    """
    keys = dict.fromkeys(key for epoch in history for key in epoch if key.startswith(EXPLAINED) and LOGITS not in key)
    return [
        f"{key} has stayed at zero (best {best:.3f}): the student learns nothing of this target"
        for key in keys
        if (best := max(epoch[key] for epoch in history if key in epoch)) < UNEXPLAINED_FRAC
    ]
