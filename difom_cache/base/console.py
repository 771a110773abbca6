"""How both commands are asked and how they end: options from a `Config`; an answer, or one line on what the user can mend."""

import gc
import inspect
import io
import json
import multiprocessing
import os
import platform
import re
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from difom_cache.base.errors import DifomError, SettingsError
from difom_cache.base.heap import keep_freed_memory

if TYPE_CHECKING:  # at run time loaded late: --help of all commands needs no options
    from difom_cache.base.options import Config, Option

USER_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143
_NO_MEMORY = "there is not enough memory for this; give it a larger machine, or less at once"
_NEW_OBJECTS = 200_000
"""After so many new objects Python looks for rings of unused ones; its own 700 is a tenth of the time that imports take, and a
quarter of that of a hundred thousand records."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came; everything that ends well after Ctrl-C ends well after this."""


def run_app(app: typer.Typer, *, interrupted: str) -> None:
    """Run a command-line application and exit: 0 when done, 2 after one line for a user error, 130 after Ctrl-C.

    SIGTERM, which schedulers send before they kill, ends it as Ctrl-C does, with 143.

    Args:
        app: what to run.
        interrupted: the sentence printed after Ctrl-C; it says how to go on, where the command has no words of its own.
    """
    warnings.showwarning = _print_warning
    if sys.argv[1:2] == ["--version"]:
        print(describe_versions())
        sys.exit(0)
    asked_to_end = _heed_sigterm()
    words = [interrupted]
    keep_freed_memory()
    gc.set_threshold(_NEW_OBJECTS)
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be UTF-8, and is shown all the same
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "" in sys.argv[1:]:  # as a path it would mean the folder that one happens to be in
        _end("error: an argument is empty; is a variable of your script not set?", USER_ERROR)
    if any("\0" in word for word in sys.argv[1:]):  # no shell passes one on, but a program that calls this one may
        _end("error: an argument holds a zero byte, which no file's name can have; is it text?", USER_ERROR)
    try:
        status = app(standalone_mode=False, obj=words)
    except DifomError as error:
        if asked_to_end:  # such as the news that a worker has died
            _end_early(words, asked_to_end)
        _end(f"error: {_one_line(error)}", USER_ERROR)
    except TyperException as error:  # the parser's own: an option that does not exist
        _end(f"error: {error.format_message()} (see --help)", USER_ERROR)
    except BrokenPipeError:
        _end("", 1)
    except (KeyboardInterrupt, typer.Abort):
        _end_early(words, asked_to_end)
    except OSError as error:  # the machine's, not the program's: a file, a disk, a limit
        _end(f"error: {describe_os_error(error)}", USER_ERROR)
    except MemoryError:
        _end(f"error: {_NO_MEMORY}", USER_ERROR)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt) or asked_to_end:  # a pool whose workers were ended, too
            _end_early(words, asked_to_end)
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):  # PyTorch's own MemoryError
            _end(f"error: {_NO_MEMORY}", USER_ERROR)
        if isinstance(error, RuntimeError) and str(error).startswith(
            "Symlink loop"
        ):  # pathlib's, where others raise OSError
            _end(f"error: {_one_line(error)}", USER_ERROR)
        raise
    if status == INTERRUPTED:  # the parser has seen Ctrl-C itself
        _end_early(words, asked_to_end)
    sys.exit(status if isinstance(status, int) else 0)


def describe_versions() -> str:
    """Return the versions of this package and of what it mostly stands on, for who reports a fault."""
    names = ("difom", "torch", "zarr", "numpy")
    from importlib.metadata import version  # a tenth of what --help takes

    found = [f"{name} {version(name)}" for name in names if find_spec(name if name != "difom" else "difom_cache")]
    return f"{', '.join(found)}, Python {platform.python_version()}"


def _heed_sigterm() -> list[int]:
    """Turn SIGTERM into an interrupt; return a list that holds its number once it came."""
    came: list[int] = []
    owner = os.getpid()

    def end(number: int, frame: Any) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a second one ends at once
        if os.getpid() != owner:  # a worker that was forked: it has nothing of its own to finish
            os._exit(TERMINATED)
        came.append(number)
        for worker in multiprocessing.active_children():  # they got no signal, and would outlive this process
            worker.terminate()
        raise Terminated

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, end)
    return came


def _end_early(words: list[str], asked_to_end: list[int]) -> None:
    if asked_to_end:
        _end(f"ended by SIGTERM: {words[0]}", TERMINATED)
    _end(words[0], INTERRUPTED)


def describe_os_error(error: OSError) -> str:
    """Return one line that names the file, where there is one, and what went wrong."""
    what = error.strerror or _one_line(error) or type(error).__name__
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return _one_line(f"{names}: {what}" if names else what)


def add_command(
    app: typer.Typer,
    config: str,
    run: Callable[[Any], object],
    name: str | None = None,
    *,
    plain: bool = False,
    interrupted: str | None = None,
) -> None:
    """Make `run` a command of `app` whose options are the fields of a config.

    The options are read when the command is called, so that listing the commands stays quick.

    Args:
        app: to add to.
        config: where its class lies, "module:Class".
        run: takes the checked config; its name and docstring are the command's.
        name: in place of the function's.
        plain: whether it is what the application does when no command is named.
        interrupted: its own sentence after Ctrl-C, in place of the application's.
    """

    def call(context: typer.Context) -> None:
        """Stands in for `run` until the options are known."""

    call.__doc__ = run.__doc__
    own = {"config": config, "run": staticmethod(run), "interrupted": interrupted}
    kind = type(run.__name__, (_ConfiguredGroup if plain else _ConfiguredCommand,), own)
    if plain:
        app.callback(cls=kind, invoke_without_command=True)(call)
    else:
        app.command(name or run.__name__.replace("_", "-"), cls=kind)(call)


def add_benchmarks(app: typer.Typer, *words: str) -> None:
    """Make `bench` a command of `app` that hands its words, after `words`, to `python -m benchmarks` of this checkout."""
    as_they_are = {"allow_extra_args": True, "ignore_unknown_options": True}

    @app.command(cls=Command, add_help_option=False, context_settings=as_they_are)
    def bench(context: typer.Context) -> None:
        """Run the benchmarks of a checkout, as `python -m benchmarks` does there."""
        root = Path(__file__).parents[2]
        if not (root / "benchmarks" / "cli.py").is_file():
            raise SettingsError(
                "the benchmarks are not installed: they lie in the project's checkout, where `python -m benchmarks "
                f"{' '.join([*words, *context.args])}` runs them"
            )
        sys.path.insert(0, str(root))
        sys.argv = ["python -m benchmarks", *words, *context.args]
        import_module("benchmarks.cli").main()


class _Alike:
    """A command whose help looks as that of any other of ours."""

    params: list[Any]
    help: str | None
    _groups: Mapping[str, str] | None = None
    "Heading of the options that do not stand under the general one."

    if TYPE_CHECKING:

        def get_params(self, ctx: Any) -> list[Any]: ...

    def get_short_help_str(self, limit: int = 0) -> str:
        """Return the first sentence of the help, whole."""
        return " ".join((self.help or "").split("\n\n")[0].split())

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the arguments, then the options in their groups; those that every command has come last."""
        groups: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        for parameter in sorted(self.get_params(ctx), key=lambda each: each.name in _LAST):
            is_argument = parameter.param_type_name == "argument"
            heading = "Arguments" if is_argument else (self._groups or {}).get(parameter.name) or "Options"
            row = parameter.get_help_record(ctx)
            if row is not None:
                groups.setdefault(heading, []).append((_name_type(row[0], is_argument), " ".join(row[1].split())))
        if ctx.parent is None:
            groups["Options"].append(("--version", "Show the versions and exit."))
        for heading, rows in groups.items():
            if rows:
                with formatter.section(heading):
                    formatter.write_dl(rows, col_max=32)
        if isinstance(self, TyperGroup):
            self.format_commands(ctx, formatter)


_LAST = ("as_json", "help")
_TYPES = {"int": "INTEGER", "float": "NUMBER", "path": "PATH"}


def _name_type(names: str, is_argument: bool) -> str:
    """Return an option's names with the word for its value in capitals, an argument's name alone."""
    if is_argument:
        return names.partition(" <")[0]
    return re.sub(r"<(?:list\[)?(\w+)\]?>", lambda found: _TYPES.get(found[1], "TEXT"), names)


class Command(_Alike, TyperCommand):
    """A command by itself."""


class Group(_Alike, TyperGroup):
    """A command that has others below it, and shows them where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Return what is left to parse; without anything, show the help and exit with 2."""
        if not args:
            print(ctx.get_help(), file=sys.stderr)
            ctx.exit(USER_ERROR)
        return super().parse_args(ctx, args)


class _Configured:
    """A command that reads its options from a config when they are first asked for."""

    config: str
    run: Callable[[Any], object]
    interrupted: str | None
    params: list[Any]
    callback: Any
    _groups: Mapping[str, str] | None = None

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, made from the config."""
        if self._groups is None:
            from difom_cache.base.options import find_config, list_options

            model = find_config(self.config)
            options = list(list_options(model))
            made = typer.Typer(add_completion=False)
            made.command()(_with_options(model, options, self.run, self.interrupted))
            parsed = typer.main.get_command(made)
            self.params, self.callback = parsed.params, parsed.callback
            self._groups = {"_".join(option.path): option.group for option in options}
        return super().get_params(ctx)  # type: ignore[misc]


class _ConfiguredCommand(_Configured, Command):
    pass


class _ConfiguredGroup(_Configured, _Alike, TyperGroup):
    pass


def _with_options(
    model: "type[Config]", options: "list[Option]", run: Callable[[Any], object], interrupted: str | None
) -> Callable[..., None]:
    """Return a function that typer reads the options from, and that calls `run` with the config of what was given.

    While it runs, `interrupted` is what `run_app` says after Ctrl-C.
    """
    from difom_cache.base.options import build

    def call(context: typer.Context, **values: Any) -> None:
        if context.invoked_subcommand is None:
            given = {option.name: value for option in options if (value := values["_".join(option.path)]) is not None}
            if interrupted is not None:
                context.obj[:] = [interrupted]
            run(build(model, given, command_line=True))

    parameters = [inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)]
    for option in options:
        kind: Any = bool if option.kind is bool else list[str] if option.is_list else str
        if option.look.argument:
            about: Any = typer.Argument(metavar=option.flag, help=option.help, show_default=False)
        else:
            on_off = f"{option.flag}/--no-{option.flag[2:]}" if kind is bool and option.about.default else option.flag
            names = [on_off, *filter(None, [option.look.short])]
            about = typer.Option(*names, help=option.help, metavar=option.metavar, show_default=False)
        parameters.append(
            inspect.Parameter(
                "_".join(option.path),
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if option.about.is_required() else None,
                annotation=Annotated[kind, about] if option.about.is_required() else Annotated[kind | None, about],
            )
        )
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {}
    return call


def print_json(value: Any) -> None:
    """Print `value` for a program to read."""
    print(json.dumps(value, indent=1, default=str))


def _one_line(text: object) -> str:
    line = " ".join(str(text).split())
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in line)


def _print_warning(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
    """Print a warning as one line, without the place in the code that it came from."""
    print(f"warning: {_one_line(message)}", file=sys.stderr)


def _end(line: str, status: int) -> None:
    if line:
        print(line, file=sys.stderr)
    sys.exit(status)
