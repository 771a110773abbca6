"""Networks that say one thing of a picture, ended in every way in which exporters end them; the masks are painted."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ended_networks import FRAMES, MASKS, PLAIN, SIDE, Ends, paint, save
from onnx import TensorProto
from truth_case import Case, Refused

from difom_cache import extract, open_cache, read_mask
from difom_train import evaluate, predict


def make(folder: Path, settings: dict[str, Any], **network: Any) -> tuple[str, Path]:
    """Save a network with its settings, and the painted frames; return the teacher and their folder."""
    save(folder / "net.onnx", **network)
    (folder / "net.json").write_text(json.dumps(PLAIN | settings))
    paint(folder / "data")
    return f"onnx:{folder / 'net.onnx'}", folder / "data"


def read_evaluated(folder: Path, settings: dict[str, Any], **network: Any) -> np.ndarray:
    teacher, data = make(folder, settings, **network)
    evaluate(f"teacher:{teacher}", data, out=folder / "eval", workers=0, device="cpu")
    return np.stack([read_mask(folder / "eval" / "masks" / "data" / f"{i}.png") for i in range(FRAMES)]).astype(bool)


def read_predicted(folder: Path, settings: dict[str, Any], **network: Any) -> np.ndarray:
    teacher, data = make(folder, settings, **network)
    frames = data / "images"
    predict(f"teacher:{teacher}", frames, out=folder / "marked", outlines=False, device="cpu")
    return np.stack([read_mask(folder / "marked" / "masks" / f"{i}.png") for i in range(FRAMES)]).astype(bool)


def read_extracted(folder: Path, settings: dict[str, Any], **network: Any) -> np.ndarray:
    teacher, data = make(folder, settings, **network)
    cache = folder / "feats"
    stored_px = 2 * SIDE  # logits are kept at stride 2: the network's own grid
    extract(
        data=data, cache=cache, teacher=teacher, input_size=stored_px, views=1, device="cpu", pictures=False, quiet=True
    )
    held = open_cache(cache)
    (tap,) = [name for name, each in held.taps.items() if each.kind == "logits"]
    rows = np.array([held.table.record[row] for row in range(len(held))])
    codes = held.gather(np.arange(len(held)), [tap], pictures=False)
    logits = held.decode(tap, codes[f"{tap}/code"], codes.get(f"{tap}/scale"))
    order = np.argsort([held.table.records[row]["id"] for row in rows])
    return logits[order, 0] >= 0


READERS: dict[str, Callable[..., np.ndarray]] = {
    "evaluate": read_evaluated,
    "predict": read_predicted,
    "extract": read_extracted,
}


def read_all(folder: Path, commands: Sequence[str] = tuple(READERS), **network: Any) -> dict[str, np.ndarray]:
    """Return the masks that each command makes of a network's answers."""
    found = {}
    for name in commands:
        (folder / name).mkdir()
        found[name] = READERS[name](folder / name, **network)
    return found


def right(name: str, ends: Ends, output: str = "out", settings: dict[str, Any] | None = None, **network: Any) -> Case:
    """Return a case in which every command makes the painted masks."""
    read = partial(read_all, settings=settings or {}, ends=ends, outputs=[output], **network)
    return Case(f"networks: {name}", read, dict.fromkeys(READERS, MASKS))


def refused(
    name: str, command: str, tokens: Sequence[str], ends: Ends, outputs: Sequence[str] = ("out",), **network: Any
) -> Case:
    """Return a case in which a command refuses, and says what decides."""
    read = partial(READERS[command], **{"settings": {}, **network}, ends=ends, outputs=outputs)
    return Case(f"networks: {name} ({command})", read, Refused(*tokens))


SIGMOID = ("Sigmoid", "logits", "prob")
COARSE = [
    SIGMOID,
    ("Conv", "logits blur", "wide", {"pads": [4, 4, 4, 4]}),
    ("Resize", "wide _ quarter", "small", {"mode": "linear"}),
    ("Resize", "small _ fourfold", "coarse", {"mode": "linear"}),
]
BYTES, BOOL, HALF = TensorProto.UINT8, TensorProto.BOOL, TensorProto.FLOAT16
CASES = [
    right("logits", [], "logits"),
    right("a sigmoid last", [SIGMOID], "prob"),
    right("a sigmoid, then resized", [SIGMOID, ("Resize", "prob _ scales", "out", {"mode": "linear"})]),
    right("a sigmoid, then clipped", [SIGMOID, ("Clip", "prob zero one", "out")]),
    right(
        "a sigmoid, clipped, then resized", [SIGMOID, ("Clip", "prob zero one", "c"), ("Resize", "c _ scales", "out")]
    ),
    right("a sigmoid times 255", [SIGMOID, ("Mul", "prob most", "out")]),
    right("a sigmoid and a threshold", [SIGMOID, ("Greater", "prob half", "yes"), ("Cast", "yes", "out", {"to": 1})]),
    right("a threshold, as booleans", [SIGMOID, ("Greater", "prob half", "out")], kind=BOOL),
    right(
        "a threshold, as bytes of 0 and 255",
        [
            SIGMOID,
            ("Greater", "prob half", "y"),
            ("Cast", "y", "f", {"to": 1}),
            ("Mul", "f most", "m"),
            ("Cast", "m", "out", {"to": BYTES}),
        ],
        kind=BYTES,
    ),
    right(
        "probabilities as bytes",
        [SIGMOID, ("Mul", "prob most", "m"), ("Round", "m", "r"), ("Cast", "r", "out", {"to": BYTES})],
        kind=BYTES,
    ),
    right("channels last", [SIGMOID, ("Transpose", "prob", "out", {"perm": [0, 2, 3, 1]})]),
    right("no channel", [SIGMOID, ("Squeeze", "prob axis1", "out")]),
    right("in 16 bits", [SIGMOID], "prob", kind=HALF, input_kind=HALF),
    right(
        "a sigmoid written out",
        [("Neg", "logits", "n"), ("Exp", "n", "e"), ("Add", "e one", "d"), ("Div", "one d", "out")],
    ),
    right(
        "a sigmoid by tanh",
        [("Mul", "logits half", "h"), ("Tanh", "h", "t"), ("Add", "t one", "u"), ("Mul", "u half", "out")],
    ),
    right(
        "a sigmoid of the background, taken from one",
        [("Neg", "logits", "n"), ("Sigmoid", "n", "q"), ("Sub", "one q", "out")],
    ),
    right("a softmax of two", [("Softmax", "pair", "out", {"axis": 1})]),
    right(
        "a softmax of two, channels last",
        [("Transpose", "pair", "t", {"perm": [0, 2, 3, 1]}), ("Softmax", "t", "out", {"axis": -1})],
    ),
    right(
        "the second of a softmax of two", [("Softmax", "pair", "s", {"axis": 1}), ("Slice", "s at1 at2 axis1", "out")]
    ),
    right("a log softmax of two", [("LogSoftmax", "pair", "out", {"axis": 1})]),
    right("logits of two", [], "pair"),
    right("the larger of two", [("ArgMax", "pair", "out", {"axis": 1, "keepdims": 0})], kind=TensorProto.INT64),
    right(
        "a softmax of three, with its channel", [("Softmax", "classes", "out", {"axis": 1})], settings={"channel": 2}
    ),
    right("logits of three, with its channel", [], "classes", {"channel": 2}),
    right("probabilities, named as such", [SIGMOID, ("Relu", "prob", "out")], settings={"values": "prob"}),
    Case(
        "networks: logits and probabilities both",
        partial(read_all, settings={}, ends=[SIGMOID], outputs=["logits", "prob"]),
        dict.fromkeys(READERS, MASKS),
    ),
    Case(
        "networks: a coarse answer first, the good one last, with masks",
        partial(read_all, settings={}, commands=("evaluate", "extract"), ends=COARSE, outputs=["coarse", "prob"]),
        {"evaluate": MASKS, "extract": MASKS},
    ),
    Case(
        "networks: a coarse answer last, the good one first, named in FILE.json",
        partial(read_all, settings={"output": "prob"}, ends=COARSE, outputs=["prob", "coarse"]),
        dict.fromkeys(READERS, MASKS),
    ),
    refused("outputs that differ, without masks", "predict", ['"output"', "coarse, prob"], COARSE, ["coarse", "prob"]),
    *(
        refused(
            "scores that are never negative",
            command,
            ['"values"', "neither logits nor"],
            [("Mul", "logits three", "m"), ("Relu", "m", "out")],
        )
        for command in READERS
    ),
    refused("probabilities times 65535", "evaluate", ['"values"'], [SIGMOID, ("Mul", "prob most16", "out")]),
    refused("a softmax of three", "evaluate", ['"channel"'], [("Softmax", "classes", "out", {"axis": 1})]),
    refused("two sigmoids", "predict", ['"channel"'], [("Add", "pair half", "a"), ("Sigmoid", "a", "out")]),
    refused(
        "probabilities called logits",
        "evaluate",
        ["net.json", "gives no logits"],
        [SIGMOID, ("Clip", "prob zero one", "out")],
        settings={"values": "logits"},
    ),
    refused(
        "logits called probabilities",
        "evaluate",
        ['"values"', "read as probabilities"],
        [],
        ["logits"],
        settings={"values": "prob"},
    ),
]
