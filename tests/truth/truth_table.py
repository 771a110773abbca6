"""Every case, and the table of them: python tests/truth/truth_table.py."""

import sys
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from truth_case import Case, judge

KINDS: tuple[str, ...] = (
    "truth_masks",
    "truth_pictures",
    "truth_sets",
    "truth_joins",
    "truth_metrics",
    "truth_video",
    "truth_networks",
    "truth_checkpoints",
)
"""Modules beside this one, each with a list `CASES`."""


def every_case() -> list[Case]:
    """Return the cases of all kinds, in order."""
    return [case for kind in KINDS for case in import_module(kind).CASES]


def main() -> None:
    """Print case, what was read, what is right; exit with 1 where one is wrong."""
    wrong = 0
    for case in every_case():
        with TemporaryDirectory() as folder:
            verdict = judge(case, Path(folder))
        wrong += not verdict.ok
        print(f"{'right' if verdict.ok else 'WRONG'} | {case.name} | read: {verdict.read} | right: {case.right!r}")
    print(f"{len(every_case())} cases, {wrong} wrong")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    main()
