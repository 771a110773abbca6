"""What accidents and strangers do to a file: every mutation is small, named, and the same each time it is asked for."""

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Mutation = Callable[[Path], None]

WRONG_VALUES: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**70,
    1e308,
    "",
    "x",
    "../../x",
    "\u00b2",
    "a\0b",
    [],
    [[]],
    {},
    {"a": 1},
    ["x", 1, None],
)
WRONG_TEXTS = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"3",
    b'"x"',
    b"\xff\xfe\x00\x01",
    b"{}" * 2,
    b"[" * 60_000,
    b'{"a": NaN}',
    bytes(64),
)


def whole_file() -> dict[str, Mutation]:
    """Return what can happen to any file."""
    return {
        "gone": Path.unlink,
        "empty": lambda path: _write(path, b""),
        "cut": lambda path: _write(path, path.read_bytes()[: path.stat().st_size // 2]),
        "longer": lambda path: _write(path, path.read_bytes() + b"\0" * 7),
        "a FIFO": _into(os.mkfifo),
        "a folder": _into(Path.mkdir),
        "a dangling link": _into(lambda path: path.symlink_to("/nowhere/at/all")),
        "a link to itself": _into(lambda path: path.symlink_to(path.name)),
        "a link to a device": _into(lambda path: path.symlink_to("/dev/zero")),
        "noise": lambda path: _write(path, random.Random(5).randbytes(max(16, path.stat().st_size))),
    }


def flipped(count: int, seed: int = 0) -> dict[str, Mutation]:
    """Return mutations that turn a few bits each."""
    return {f"flip {number}": _flip(random.Random(1000 * seed + number)) for number in range(count)}


def json_mutations(path: Path, count: int, seed: int = 0) -> Iterator[tuple[str, Mutation]]:
    """Yield mutations of the JSON (or lines of JSON) in a file: whole texts, then keys gone and values of other kinds."""
    for number, text in enumerate(WRONG_TEXTS):
        yield f"text {number}", lambda path, text=text: _write(path, text)
    draw = random.Random(seed)
    held = json.loads(path.read_text().splitlines()[0] if path.suffix == ".jsonl" else path.read_text())
    places = list(_places(held))
    for number in range(count):
        place = draw.choice(places)
        value = draw.choice((*WRONG_VALUES, "gone"))
        name = f"{number}: {'.'.join(map(str, place))} = {'gone' if value == 'gone' else json.dumps(value)[:20]}"
        if json.dumps(_at(held, place)) != json.dumps(value):  # else nothing is changed
            yield name, _set(place, value)


def _at(value: Any, place: tuple[Any, ...]) -> Any:
    for key in place:
        value = value[key]
    return value


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def _into(make: Callable[[Path], object]) -> Mutation:
    def mutate(path: Path) -> None:
        path.unlink()
        make(path)

    return mutate


def _flip(draw: random.Random) -> Mutation:
    def mutate(path: Path) -> None:
        content = bytearray(path.read_bytes())
        for _ in range(draw.choice((1, 3, 9))):
            if content:
                content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)

    return mutate


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in items:
        yield (*place, key)
        yield from _places(part, (*place, key))


def _set(place: tuple[Any, ...], value: Any) -> Mutation:
    def mutate(path: Path) -> None:
        lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
        whole = json.loads(lines[0])
        holder = whole
        for key in place[:-1]:
            holder = holder[key]
        if value == "gone":
            del holder[place[-1]]
        else:
            holder[place[-1]] = value
        path.write_text("\n".join([json.dumps(whole), *lines[1:]]) + "\n")

    return mutate
