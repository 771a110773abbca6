"""Which part of the run an epoch belongs to, and what stands still in it."""

from collections.abc import Sequence

from difom_train.students.base import Student


def phase_of(epoch: int, epochs: int, until_fracs: Sequence[float]) -> int:
    """Return the number of the phase that `epoch` (from 0) lies in.

    Args:
        epoch: counted from 0.
        epochs: of the whole run.
        until_fracs: where each phase ends, as rising shares of the run, the last 1. A phase may hold no epoch.
    """
    ends = [round(frac * epochs) for frac in until_fracs]
    return next(number for number, end in enumerate(ends) if epoch < end)


def set_mode(student: Student, *, freeze_encoder: bool) -> None:
    """Put the student into training, its encoder perhaps left out: weights and batch-norm statistics alike."""
    student.train()
    for part in student.encoder_modules():
        part.train(not freeze_encoder)
        part.requires_grad_(not freeze_encoder)
