"""Students from outside this package: installed under an entry point, named as `package.module:Factory`, or handed in.

What a run folder says is never imported: code comes from what is installed, or from whoever gives the command.
"""

import copy
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points, packages_distributions
from pathlib import Path

from torch import nn

from difom_cache.base.errors import SettingsError, name_nearest
from difom_train.config import names_code
from difom_train.students.base import Student, StudentSettings, Wrap
from difom_train.students.wrapped import WrappedStudent, find_levels, remove_readers

ENTRY_POINTS = "difom.students"

_MANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
StudentFactory = Callable[[StudentSettings], nn.Module] | Callable[[], nn.Module]
StudentSource = str | nn.Module | StudentFactory
"""`package.module:Factory`, the name of an installed student, a module, or what makes one, of its settings or of nothing."""
StudentSources = StudentSource | Sequence[StudentSource] | None
"""What was given for runs of students from outside; of several, a run takes the one of its name."""


def list_installed() -> dict[str, EntryPoint]:
    """Return the students that installed packages registered, by name."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def find_factory(name: str, known: Sequence[str]) -> StudentFactory:
    """Return what makes the student called `name`: an installed one, or `package.module:Factory`.

    Args:
        name: of the student, as the user gave it.
        known: names of this package's own students, for the message.

    Raises:
        SettingsError: there is none.
    """
    if names_code(name):
        return _import_factory(name)
    installed = list_installed()
    if name not in installed:
        unknown = name_nearest("student", name, [*known, *installed])
        raise SettingsError(f"{unknown}; one of your own is given as package.module:Factory")
    factory: StudentFactory = installed[name].load()
    return factory


def build_outside(given: nn.Module | StudentFactory, settings: StudentSettings) -> Student:
    """Return a student of a module that was handed in, which stays as it is, or of what makes one.

    Args:
        given: a student, or a module; or what returns either, of `settings` or of nothing. Levels of a module are those of
            `settings`, or else found.
        settings: its name, and the neck that it needs.

    Raises:
        SettingsError: no student comes of it, or one without the neck.
    """
    made = copy.deepcopy(given) if isinstance(given, nn.Module) else _call_factory(given, settings)
    if not isinstance(made, nn.Module):
        raise SettingsError(
            f"{settings.name} made a {type(made).__name__}; expected a student, as wrap_student returns"
        )
    if not isinstance(made, Student):
        remove_readers(made)
        wrap = settings.wrap or Wrap(find_levels(made, settings.name))
        made = WrappedStudent(made, replace(settings, neck=None, wrap=wrap))
    if isinstance(made, WrappedStudent) and made.neck is None and settings.neck is not None:
        made.add_neck(settings.neck)
    if made.settings.neck != settings.neck:
        raise SettingsError(
            f"student {settings.name} was built with neck {made.settings.neck!r}, and {settings.neck!r} is needed; "
            "build it with neck=settings.neck"
        )
    made.settings = replace(settings, wrap=made.settings.wrap)
    return made


def _call_factory(factory: StudentFactory, settings: StudentSettings) -> object:
    """Return what a factory makes, of nothing where it can; what goes wrong inside it is its author's to see whole."""
    try:
        signature = inspect.signature(factory)
        wanted = [
            each for each in signature.parameters.values() if each.default is each.empty and each.kind not in _MANY
        ]
        arguments = [settings] if wanted or [*signature.parameters][:1] == ["settings"] else []
        signature.bind(*arguments)
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"{settings.name} needs more than a student's settings ({error}); write def build() that returns the network, or "
            "def build(settings) that returns wrap_student(network, levels={...}, neck=settings.neck)"
        ) from error
    return factory(*arguments)


def find_packages(name: str) -> tuple[str, ...]:
    """Return the distributions that hold an outside student's code, as far as they are installed."""
    if names_code(name):
        return tuple(dict.fromkeys(packages_distributions().get(name.partition(":")[0].partition(".")[0], ())))
    point = list_installed().get(name)
    return () if point is None or point.dist is None else (point.dist.name,)


def choose_given(given: StudentSources, name: str) -> StudentSource | None:
    """Return the student to build a run of: the one given, of several that of the run's name, else an installed one.

    Where one alone was given beside other runs, it is for those that nothing else is known of; None where nothing is.
    """
    if given is not None and not isinstance(given, list | tuple):
        return given  # type: ignore[return-value]
    several = list(given or ())
    named = next((each for each in several if _name_of(each) == name), None)
    if named is None and not names_code(name) and name in list_installed():
        return name
    return several[0] if named is None and len(several) == 1 else named


def _name_of(given: StudentSource) -> str:
    if isinstance(given, str):
        return given
    return given.name if isinstance(given, Student) else type(given).__name__


def _import_factory(spec: str) -> StudentFactory:
    """Return what lies at `package.module:Name`; modules in the current folder come after those that are installed."""
    place, _, name = spec.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # to stay: the factory may import its neighbours when it is called
    try:
        found = import_module(place)
    except ImportError as error:
        raise SettingsError(
            f"student {spec}: {place} cannot be imported ({' '.join(str(error).split())}); install its package, or start from "
            f"the folder that holds it (this is {here})"
        ) from error
    for part in name.split("."):
        if not hasattr(found, part):
            raise SettingsError(f"student {spec}: {place} has no {name!r}")
        found = getattr(found, part)
    if not callable(found):
        raise SettingsError(f"student {spec}: {name} is a {type(found).__name__}; expected what makes a student")
    factory: StudentFactory = found
    return factory
