"""How both commands end: an answer, or one line on what the user can mend."""

import json
import sys
from typing import Any

import typer

from difom_cache.errors import DifomError

USER_ERROR, INTERRUPTED = 2, 130


def run_app(app: typer.Typer, *, interrupted: str) -> None:
    """Run a command-line application and exit: 0 when done, 2 after one line for a user error, 130 after Ctrl-C.

    Args:
        app: what to run.
        interrupted: the sentence printed after Ctrl-C; it says how to go on.
    """
    try:
        status = app(standalone_mode=False)
    except DifomError as error:
        _end(f"error: {' '.join(str(error).split())}", USER_ERROR)
    except BaseException as error:
        if _is_interrupt(error):
            _end(interrupted, INTERRUPTED)
        if hasattr(error, "format_message") and hasattr(
            error, "exit_code"
        ):  # the parser's own: an option that does not exist
            _end(f"error: {error.format_message()} (see --help)", USER_ERROR)
        if isinstance(error, BrokenPipeError):
            _end("", 1)
        raise
    if status == INTERRUPTED:  # the parser has seen Ctrl-C itself
        _end(interrupted, INTERRUPTED)
    sys.exit(status if isinstance(status, int) else 0)


def split_list(text: str | None) -> tuple[str, ...] | None:
    """Return the parts of "a,b,c"; None stays None."""
    return None if text is None else tuple(part.strip() for part in text.split(",") if part.strip())


def print_json(value: Any) -> None:
    """Print `value` for a program to read."""
    print(json.dumps(value, indent=1, default=str))


def _is_interrupt(error: BaseException) -> bool:
    return (
        isinstance(error, KeyboardInterrupt)
        or type(error).__name__ == "Abort"
        or isinstance(error.__cause__, KeyboardInterrupt)
    )


def _end(line: str, status: int) -> None:
    if line:
        print(line, file=sys.stderr)
    sys.exit(status)
