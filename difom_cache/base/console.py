"""How both commands are asked and how they end: options from a `Config`; an answer, or one line on what the user can fix."""

import gc
import inspect
import io
import json
import multiprocessing
import os
import platform
import signal
import sys
import textwrap
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from difom_cache.base.errors import DifomError, SettingsError, name_nearest

if TYPE_CHECKING:  # at run time loaded late: --help of all commands needs no options
    from difom_cache.base.options import CommandConfig, Option

USER_ERROR, INTERRUPTED, TERMINATED = 2, 130, 143
_NO_MEMORY = "there is not enough memory for this; give it a larger machine, or less at once"
_NEW_OBJECTS = 200_000
"""After so many new objects Python looks for rings of unused ones; its own 700 is a tenth of the time that imports take, and a
quarter of that of a hundred thousand records."""


class Terminated(KeyboardInterrupt):
    """SIGTERM came; everything that ends well after Ctrl-C ends well after this."""


def run_app(run: Callable[[], object], *, interrupted: str) -> None:
    """Run what a command line asks for and exit: 0 when done, 2 after one line for a user error, 130 after Ctrl-C.

    SIGTERM, which schedulers send before they kill, ends it as Ctrl-C does, with 143.

    Args:
        run: does it.
        interrupted: the sentence printed after Ctrl-C; it says how to go on.
    """
    warnings.showwarning = _print_warning
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # its warnings in C++ are not for who types commands
    if sys.argv[1:2] == ["--version"]:
        print(describe_versions())
        sys.exit(0)
    asked_to_end = _heed_sigterm()
    gc.set_threshold(_NEW_OBJECTS)
    for stream in (sys.stdout, sys.stderr):  # a file's name need not be UTF-8, and is shown all the same
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    if "" in sys.argv[1:]:  # as a path it would mean the folder that one happens to be in
        _end("error: an argument is empty; is a variable of your script not set?", USER_ERROR)
    if any("\0" in word for word in sys.argv[1:]):  # no shell passes one on, but a program that calls this one may
        _end("error: an argument holds a zero byte, which no file's name can have; is it text?", USER_ERROR)
    try:
        run()
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    except DifomError as error:
        if asked_to_end:  # such as the news that a worker has died
            _end_early(interrupted, asked_to_end)
        _end(f"error: {_resume(_one_line(error), interrupted)}", USER_ERROR)
    except typer.TyperException as error:  # the parser's own: an option that does not exist
        _end(f"error: {error.format_message()} (see --help)", USER_ERROR)
    except BrokenPipeError:
        _end("", 1)
    except (KeyboardInterrupt, typer.Abort):
        _end_early(interrupted, asked_to_end)
    except OSError as error:  # the machine's, not the program's: a file, a disk, a limit
        _end(f"error: {_resume(describe_os_error(error), interrupted)}", USER_ERROR)
    except MemoryError:
        _end(f"error: {_NO_MEMORY}", USER_ERROR)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt) or asked_to_end:  # a pool whose workers were ended, too
            _end_early(interrupted, asked_to_end)
        if isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error):  # PyTorch's own MemoryError
            _end(f"error: {_NO_MEMORY}", USER_ERROR)
        if isinstance(error, RuntimeError) and str(error).startswith(
            "Symlink loop"
        ):  # pathlib's, where others raise OSError
            _end(f"error: {_one_line(error)}", USER_ERROR)
        raise
    sys.exit(0)


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


def _end_early(interrupted: str, asked_to_end: list[int]) -> None:
    if asked_to_end:
        _end(f"ended by SIGTERM: {interrupted}", TERMINATED)
    _end(interrupted, INTERRUPTED)


def describe_os_error(error: OSError) -> str:
    """Return one line that names the file, what went wrong, and the way on where there is one.

    A call on an open file knows no name: then it is the path that the innermost function with one was at work on.
    """
    what = error.strerror or _one_line(error) or type(error).__name__
    names = " and ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    if not names:
        frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        held = [value for frame in reversed(frames) for value in frame.f_locals.values() if isinstance(value, Path)]
        names = f"at work on {held[0]}" if held else ""
    from difom_cache.base.disk import say_way_on  # late: --help needs none of it

    way_on = say_way_on(error)
    return _one_line((f"{names}: {what}" if names else what) + (f". {way_on}" if way_on else ""))


def _resume(line: str, interrupted: str) -> str:
    """Return a line whose "same command again" is one that goes on, where a command's sentence after Ctrl-C has --resume."""
    again = "same command again"
    return line.replace(again, f"{again} with --resume") if "--resume" in interrupted else line


@dataclass(frozen=True)
class Command:
    """One command of a program.

    Attributes:
        run: takes the checked config, or, without one, the words that were typed; its docstring is the help.
        config: where the class of its options lies, "module:Class"; it is loaded when the command is called.
        name: in place of the function's; "weights fetch" stands below "weights".
        interrupted: its own sentence after Ctrl-C, in place of the program's.
        part: of the work, under which the program's help lists it.
    """

    run: Callable[[Any], object]
    config: str = ""
    name: str = ""
    interrupted: str = ""
    part: str = ""

    @property
    def words(self) -> tuple[str, ...]:
        """What is typed for it after the program's name."""
        return tuple((self.name or self.run.__name__.replace("_", "-")).split())

    @property
    def help(self) -> list[str]:
        """The paragraphs of its docstring, the first of which stands in lists of commands."""
        return [" ".join(part.split()) for part in inspect.cleandoc(self.run.__doc__ or "").split("\n\n")]

    @property
    def common(self) -> tuple[str, ...]:
        """The options that its help shows unless all are asked for; none: all of them."""
        if not self.config:
            return ()
        from difom_cache.base.options import find_config

        return tuple(find_config(self.config).COMMON)

    def read(self, words: Sequence[str], called: str = "") -> Any:
        """Return the checked config of what was typed; the words themselves where there is none.

        Raises:
            TyperException: no such option, or an argument too many or too few.
            SettingsError: a value that cannot be.
        """
        if not self.config:
            return list(words)
        from difom_cache.base.options import build, find_config, list_options

        model = find_config(self.config)
        options = list(list_options(model))

        def read(**values: Any) -> Any:
            given = {option.name: value for option in options if (value := values["_".join(option.path)]) is not None}
            return build(model, given, command_line=True)

        parser = typer.Typer(add_completion=False, rich_markup_mode=None)
        parser.command(add_help_option=False)(_declare(read, options))
        return parser(list(words), prog_name=called, standalone_mode=False)


@dataclass(frozen=True)
class Program:
    """What is typed first, and the commands that can follow.

    Attributes:
        name: of the program.
        about: one sentence.
        commands: those that are named.
        interrupted: the sentence printed after Ctrl-C; it says how to go on, where the command has no words of its own.
        plain: the one of them that is done where none is named; None shows the help.
    """

    name: str
    about: str
    commands: tuple[Command, ...]
    interrupted: str
    plain: Command | None = None

    def main(self) -> None:
        """Run what was typed, and exit: 0 when done, 2 after one line for a user error, 130 after Ctrl-C."""
        if f"_{self.name.replace('-', '_').upper()}_COMPLETE" in os.environ or sys.argv[1:2] in _COMPLETION:
            return run_app(self.complete, interrupted=self.interrupted)
        _, command, _ = self.find(sys.argv[1:])
        said = command.interrupted if command is not None else ""
        run_app(lambda: self.call(sys.argv[1:]), interrupted=said or self.interrupted)

    def call(self, words: Sequence[str]) -> None:
        """Run what was typed, or show its help.

        Raises:
            SettingsError: there is no such command.
        """
        called, command, rest = self.find(words)
        own = rest[: rest.index("--")] if "--" in rest else rest
        if {"--help", "--help-all"} & {*own} and (command is None or command.config):
            print(self.help(called, everything="--help-all" in own))
        elif command is not None:
            command.run(command.read(rest, " ".join([self.name, *called])))
        elif rest:
            names = [each.words[-1] for each in self.commands if each.words[:-1] == called]
            raise SettingsError(f"{name_nearest('command', rest[0], names)} (see --help)")
        else:
            print(self.help(called), file=sys.stderr)
            raise typer.Exit(USER_ERROR)

    def complete(self) -> None:
        """Let typer answer a shell that completes a line, or install what makes the shell ask."""
        from difom_cache.base.options import find_config, list_options

        def declare(command: Command | None) -> Callable[..., None]:
            options = list_options(find_config(command.config)) if command is not None and command.config else ()
            return _declare(lambda **_: None, list(options))

        app = typer.Typer(rich_markup_mode=None)
        app.callback(invoke_without_command=True)(declare(self.plain))
        groups: dict[tuple[str, ...], typer.Typer] = {(): app}
        for each in self.commands:
            *group, name = each.words
            if tuple(group) not in groups:
                groups[tuple(group)] = typer.Typer()
                app.add_typer(groups[tuple(group)], name=group[-1])
            groups[tuple(group)].command(name, help=each.help[0])(declare(each))
        app(prog_name=self.name)

    def find(self, words: Sequence[str]) -> tuple[tuple[str, ...], Command | None, list[str]]:
        """Return the words that name a command or a group of them, the command where it is one, and what follows them."""
        names = {command.words: command for command in self.commands}
        groups: dict[tuple[str, ...], Command | None] = {name[:-1]: None for name in names}
        known = groups | {(): self.plain if not words or words[0].startswith("-") else None} | names
        called = max((name for name in known if tuple(words[: len(name)]) == name), key=len)
        return called, known[called], list(words[len(called) :])

    def help(self, called: Sequence[str] = (), *, everything: bool = False) -> str:
        """Return the help page of the command or group that these words name; `everything` shows rare options, too."""
        called, command, _ = self.find(called)
        below = [each for each in self.commands if each.words[: len(called)] == called and each.words != called]
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": []}
        common = () if command is None or everything else command.common
        found = [each for each in _list_rows(command) if not common or each[0] in common]
        for _, heading, row in sorted(found, key=lambda each: common.index(each[0]) if common else 0):
            rows.setdefault("Options" if common else heading, []).append(row)
        usage = " ".join([self.name, *called, "[OPTIONS]", *(name for name, _ in rows["Arguments"])])
        rows["Options"].sort(key=lambda row: row[0] == "--json")
        if common:
            rows["Options"].append(("--help-all", "Show every option and exit."))
        if not called:
            rows["Options"].append(("--install-completion", "Install completion for this shell."))
        rows["Options"].append(("--help", "Show this message and exit."))
        if not called:
            rows["Options"].append(("--version", "Show the versions and exit."))
        lines = [f"Usage: {usage if not below else ' '.join([self.name, *called, 'COMMAND [OPTIONS] [ARGS]...'])}"]
        for part in command.help if command and not below else [] if called else [self.about]:
            lines += ["", *textwrap.wrap(part, _WIDTH, initial_indent="  ", subsequent_indent="  ")]
        if below:
            width = max(len(" ".join(each.words[len(called) :])) for each in below)
            names = [(each.part, (" ".join(each.words[len(called) :]).ljust(width), each.help[0])) for each in below]
            parts = dict.fromkeys(part for part, _ in names)
            lines += ["", "Commands:"]
            for part in parts:
                lines += [f"  {part}"] if len(parts) > 1 else []
                lines += _in_columns([row for of, row in names if of == part], 4 if len(parts) > 1 else 2)
        for heading, some in rows.items():
            lines += ["", f"{heading}:", *_in_columns(some)] if some else []
        return "\n".join(lines)


_WIDTH, _NAMES_WIDTH = 79, 32
_COMPLETION = (["--install-completion"], ["--show-completion"])


def _list_rows(command: Command | None) -> Iterator[tuple[str, str, tuple[str, str]]]:
    """Yield the name, the heading and the line of each option of a command."""
    if command is None or not command.config:
        return
    from difom_cache.base.options import find_config, list_options

    for option in list_options(find_config(command.config)):
        text = option.help + (" [required]" if option.about.is_required() else "")
        if option.look.argument:
            yield option.name, "Arguments", (f"{option.flag}..." if option.is_list else option.flag, text)
            continue
        names = ", ".join(filter(None, [option.look.short, option.flag]))
        names += f" / --no-{option.flag[2:]}" if option.kind is bool and option.about.default else ""
        value = "" if option.kind is bool else f" {option.metavar}"
        yield option.name, option.group or "Options", (names + value, text)


def _in_columns(rows: Sequence[tuple[str, str]], indent: int = 2) -> Iterator[str]:
    """Yield lines of names, and beside them what they mean; a long name has a line of its own."""
    width = min(_NAMES_WIDTH, max(len(name) for name, _ in rows)) + indent + 2
    for name, text in rows:
        first, *others = textwrap.wrap(text, _WIDTH - width, break_on_hyphens=False) or [""]
        if len(name) > width - indent - 2:
            yield " " * indent + name
            name = ""
        yield f"{' ' * indent}{name}".ljust(width) + first
        yield from (" " * width + line for line in others)


def _declare(function: Callable[..., Any], options: "Sequence[Option]") -> Callable[..., Any]:
    """Return a function that takes any keyword as one of which typer knows the options."""
    function.__signature__ = inspect.Signature(list(map(_as_parameter, options)))  # type: ignore[attr-defined]
    function.__annotations__ = {}
    return function


def _as_parameter(option: "Option") -> inspect.Parameter:
    """Return what typer reads an option from: a parameter of a function."""
    kind: Any = bool if option.kind is bool else list[str] if option.is_list else str
    name, required = "_".join(option.path), option.about.is_required()
    if option.look.argument:
        about: Any = typer.Argument(metavar=option.flag)
    else:
        on_off = f"{option.flag}/--no-{option.flag[2:]}" if kind is bool and option.about.default else option.flag
        about = typer.Option(*filter(None, [on_off, option.look.short, option.other_flag]))
    default = inspect.Parameter.empty if required else None
    annotation = Annotated[kind, about] if required else Annotated[kind | None, about]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def run_benchmarks(words: Sequence[str]) -> None:
    """Run the benchmarks of a checkout, as `python -m benchmarks` does there."""
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "cli.py").is_file():
        raise SettingsError(
            "the benchmarks are not installed: they lie in the project's checkout, where "
            f"`{' '.join(['python -m benchmarks', *words])}` runs them"
        )
    sys.path.insert(0, str(root))
    sys.argv = ["python -m benchmarks", *words]
    import_module("benchmarks.cli").main()


def answer(config: "CommandConfig", result: Any) -> None:
    """Print what a command found out: what it renders for people or, with --json, holds for programs."""
    print_json(result.as_json()) if config.as_json else print(result.render())


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
