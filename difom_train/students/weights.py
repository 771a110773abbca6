"""Where a student's first weights come from: chance, ImageNet through a hub, or a file."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from huggingface_hub import constants
from torch import Tensor, nn

from difom_cache.base.errors import SettingsError, WeightsError
from difom_cache.teachers import read_weights
from difom_train.students.base import Student

REACH_S = 5.0  # a hub that answers nothing for so long counts as unreachable; its own retries take most of a minute
WAY_OUT = "pass --student-weights random, or --student-weights PATH with a file fetched elsewhere"
OFFLINE = "pass --student-weights random, or --student-weights imagenet:FILE with timm's file fetched elsewhere"


def fetch(what: str, create: Callable[[], Any]) -> Any:
    """Return what `create` makes with weights from a hub or from its local cache.

    Raises:
        WeightsError: they are neither cached nor reachable; one line that names the way out.
    """
    try:
        with _offline_if_unreachable():
            return create()
    except (SettingsError, MemoryError):
        raise
    except Exception as error:  # hubs fail with errors of many families (HTTP, socket, hub); the cause is kept
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WeightsError(f"ImageNet weights of {what} could not be fetched ({reason}); {OFFLINE}") from error


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    """Let the hub's client use its cache only, while inside, if the hub cannot be reached."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _hub_answers()
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _hub_answers() -> bool:
    try:
        with urlopen(constants.ENDPOINT, timeout=REACH_S):
            return True
    except HTTPError:
        return True  # it answered, if only to refuse this page
    except OSError:
        return False


def load_file_into(student: Student, path: Path) -> None:
    """Put the weights of `path` into `student`.

    Args:
        path: a run folder, or a file (safetensors, pt, pth, ckpt) of the student, its encoder or the module that it wraps,
            below `module.`, `model.` or whatever its trainer put around it.

    Raises:
        WeightsError: no such file, unreadable, or another network's (names the first difference).
    """
    file = path / "student.safetensors" if path.is_dir() else path
    if not file.is_file():
        raise WeightsError(f"no student weights at {file}; {WAY_OUT}")
    home = student.weights_home()
    names, wanted = set(student.state_dict()), set(home.state_dict())
    state, whole, part = read_weights(file, (), names, wanted)
    beyond = len(names & set(whole)) - len(wanted & set(part))  # tensors of the file that are no part of the encoder
    if names & set(state) or 2 * beyond > len(names) - len(wanted):
        _load(student, whole, file)
    else:
        _load(home, {name: value for name, value in part.items() if name in wanted}, file)


def _load(module: nn.Module, state: dict[str, Tensor], file: Path) -> None:
    expected = module.state_dict()
    missing = sorted(set(expected) - set(state))
    unknown = sorted(set(state) - set(expected))
    if missing or unknown:
        which = f"lacks {missing[0]!r}" if missing else f"has an unknown {unknown[0]!r}"
        raise WeightsError(
            f"{file} holds another network's weights: it {which} "
            f"({len(missing)} missing, {len(unknown)} unknown of {len(expected)}); {WAY_OUT}"
        )
    for name, value in expected.items():
        if value.shape != state[name].shape:
            raise WeightsError(
                f"{file} holds another network's weights: {name!r} is {tuple(state[name].shape)}, "
                f"expected {tuple(value.shape)} (another width or neck?); {WAY_OUT}"
            )
    module.load_state_dict(state)
