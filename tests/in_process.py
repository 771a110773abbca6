"""`difom-cache` in the test's own process: what it prints; an error is raised as it is."""

import io
from contextlib import redirect_stderr, redirect_stdout

from difom_cache.cli import PROGRAM


def invoke(*words: object) -> str:
    """Return the output of a command, both streams together."""
    printed = io.StringIO()
    with redirect_stdout(printed), redirect_stderr(printed):
        PROGRAM.call(list(map(str, words)))
    return printed.getvalue()
