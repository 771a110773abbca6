"""One thing that people bring, what we make of it, and what is right, known from somewhere else.

A module beside this one holds the cases of one kind in `CASES`; `test_truth.py` runs them all, `make truth` prints them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from difom_cache.errors import DifomError, DifomWarning


class Refused:
    """The right answer is an error of ours, of one line, that holds each of `tokens`."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens

    def __repr__(self) -> str:
        return f"refused ({', '.join(self.tokens)})"


@dataclass(frozen=True)
class Case:
    """A case of the suite.

    Attributes:
        name: what is brought, as in "masks: 0 and 1 saved as JPEG".
        read: makes it in an empty folder, and returns what difom reads there.
        right: the value that a person, or another library, finds there (compared by equality; numbers within 1e-6), or `Refused`.
    """

    name: str
    read: Callable[[Path], Any]
    right: Any


@dataclass(frozen=True)
class Verdict:
    """What was read of a case, and whether that is right."""

    case: Case
    read: str
    ok: bool


def judge(case: Case, folder: Path) -> Verdict:
    """Return what difom makes of a case in a folder of one name in `folder`, which is empty; only its own errors are a refusal.

    The folder's name is a data set's name, which decides splits; and COCO files look for images in the folder above them.
    """
    folder = folder / "case"
    folder.mkdir(parents=True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DifomWarning)  # a warning beside a right answer is no error
            read = case.read(folder)
    except DifomError as error:
        said = str(error)
        wanted = case.right.tokens if isinstance(case.right, Refused) else None
        return Verdict(case, said, wanted is not None and "\n" not in said and all(each in said for each in wanted))
    if isinstance(case.right, Refused):
        return Verdict(case, f"{read!r}, in silence", False)
    return Verdict(case, repr(read), _equal(read, case.right))


def _equal(read: Any, right: Any) -> bool:
    if isinstance(right, dict):
        return isinstance(read, dict) and read.keys() == right.keys() and all(_equal(read[k], right[k]) for k in right)
    if isinstance(right, (float, np.ndarray)):
        return bool(np.shape(read) == np.shape(right) and np.allclose(read, right, rtol=0, atol=1e-6))
    return bool(read == right)
