"""One small network for pictures of 64 px, ended in any way, and painted frames of which it says the truth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIDE = 64
FRAMES = 4
PLAIN = {"mean": [0, 0, 0], "std": [1, 1, 1]}
# The polyp is red and dark in green: logit = 12 (r - g) - 5, on pixels / 255; -2.4 of mucosa, 1.1 of a polyp, -5 of the border.
NUMBERS = {
    "w": np.array([[[[12.0]], [[-12.0]], [[0.0]]]]),
    "b": np.array([-5.0]),
    "w2": np.array(
        [[[[-6.0]], [[6.0]], [[0.0]]], [[[6.0]], [[-6.0]], [[0.0]]]]
    ),  # background, polyp: half the logit each
    "b2": np.array([2.5, -2.5]),
    "w3": np.array([[[[-6.0]], [[6.0]], [[0.0]]], [[[0.0]], [[0.0]], [[0.0]]], [[[6.0]], [[-6.0]], [[0.0]]]]),
    "b3": np.array([2.5, -9.0, -2.5]),
    "scales": np.array([1, 1, 1, 1]),
    "zero": np.array(0.0),
    "one": np.array(1.0),
    "half": np.array(0.5),
    "three": np.array(3.0),
    "most": np.array(255.0),
    "most16": np.array(65535.0),
    "quarter": np.array([1, 1, 0.25, 0.25]),
    "fourfold": np.array([1, 1, 4, 4]),
    "blur": np.full((1, 1, 9, 9), 1 / 81),
}
INTEGERS = {"at1": [1], "at2": [2], "axis1": [1]}
MASKS = np.zeros((FRAMES, SIDE, SIDE), dtype=bool)
"""Where the polyps are: one each in three frames, none in the last."""
for _index in range(FRAMES - 1):
    _y, _x = np.mgrid[:SIDE, :SIDE]
    MASKS[_index] = np.hypot(_y - 24 - 6 * _index, _x - 40 + 7 * _index) < 9 + 3 * _index
Ends = Sequence[tuple[str, str, str] | tuple[str, str, str, dict[str, Any]]]


def paint(folder: Path) -> None:
    """Save frames of 64 x 64 px with their masks."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for index, mask in enumerate(MASKS):
        frame = np.where(mask[..., None], (190, 60, 60), (200, 145, 130)).astype(np.uint8)
        frame[:4] = frame[:, :4] = 0
        Image.fromarray(frame).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask).save(folder / "masks" / f"{index}.png")


def save(
    path: Path,
    ends: Ends,
    outputs: Sequence[str],
    *,
    kind: int = TensorProto.FLOAT,
    input_kind: int = TensorProto.FLOAT,
) -> None:
    """Save a network: pixels (N, 3, 64, 64) become `logits`, `pair` or `three`, and `ends` (operator, inputs, output) follow."""
    number = np.float16 if input_kind == TensorProto.FLOAT16 else np.float32
    heads: Ends = [("Conv", "input w b", "logits"), ("Conv", "input w2 b2", "pair"), ("Conv", "input w3 b3", "classes")]
    nodes = [
        helper.make_node(op, ["" if name == "_" else name for name in names.split()], [out], **dict(*attributes))
        for op, names, out, *attributes in [*heads, *ends]
    ]
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    held = [
        numpy_helper.from_array(
            np.asarray(values, np.float32 if name in ("scales", "quarter", "fourfold") else number), name
        )
        for name, values in NUMBERS.items()
        if name in needed
    ]
    held += [numpy_helper.from_array(np.array(v, np.int64), name) for name, v in INTEGERS.items() if name in needed]
    graph = helper.make_graph(
        kept[::-1],
        "segmenter",
        [helper.make_tensor_value_info("input", input_kind, ["n", 3, SIDE, SIDE])],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        held,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
