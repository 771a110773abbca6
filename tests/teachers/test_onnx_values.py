"""What a graph says for certain of its output, by the definitions of its operators."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from difom_cache.teachers import tell_by_graph

NUMBERS = {"zero": 0.0, "one": 1.0, "half": 0.5, "top": 255.0, "inverse": 1 / 255, "six": 6.0}
SIGMOID = ("Sigmoid", "x", "p")


def tell(*ends: tuple, channels: int = 1) -> str | None:
    nodes = [helper.make_node(op, names.split(), [out], **dict(*rest)) for op, names, out, *rest in ends]
    held = [numpy_helper.from_array(np.array(value, "f4"), name) for name, value in NUMBERS.items()]
    ends_of = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "out")]
    return tell_by_graph(
        helper.make_model(helper.make_graph(nodes, "g", ends_of[:1], ends_of[1:], held)), "out", channels
    )


@pytest.mark.parametrize(
    ("ends", "wanted"),
    [
        ([("Sigmoid", "x", "out")], "prob"),
        ([("HardSigmoid", "x", "out")], "prob"),
        ([SIGMOID, ("Clip", "p zero one", "out")], "prob"),
        ([SIGMOID, ("Clip", "p", "out", {"min": 0.0, "max": 1.0})], "prob"),  # opset 6
        ([SIGMOID, ("Clip", "p zero half", "out")], None),
        ([("Clip", "x zero one", "out")], None),  # of anything
        ([SIGMOID, ("Mul", "p top", "out")], "prob255"),
        ([SIGMOID, ("Mul", "top p", "out")], "prob255"),
        ([SIGMOID, ("Div", "p inverse", "out")], "prob255"),
        ([SIGMOID, ("Mul", "p top", "m"), ("Div", "m top", "out")], "prob"),
        ([SIGMOID, ("Mul", "p six", "out")], None),
        ([SIGMOID, ("Mul", "p x", "out")], None),  # attention
        ([SIGMOID, ("Div", "one p", "out")], None),
        ([SIGMOID, ("Sub", "one p", "out")], "prob"),
        ([SIGMOID, ("Sub", "p half", "out")], None),
        ([SIGMOID, ("Round", "p", "out")], "mask"),
        ([SIGMOID, ("Greater", "p half", "g"), ("Cast", "g", "out", {"to": 1})], "mask"),
        ([("GreaterOrEqual", "x zero", "out")], "mask"),
        ([("Less", "x zero", "g"), ("Not", "g", "out")], "mask"),
        ([("Greater", "x zero", "g"), ("Cast", "g", "c", {"to": 1}), ("Mul", "c top", "out")], "mask"),
        ([("Greater", "x zero", "g"), ("Cast", "g", "c", {"to": 1}), ("Resize", "c", "out")], "prob"),
        ([SIGMOID, ("QuantizeLinear", "p inverse zero", "q"), ("DequantizeLinear", "q inverse zero", "out")], "prob"),
        ([SIGMOID, ("QuantizeLinear", "p inverse zero", "out")], None),
        ([("Tanh", "x", "out")], None),
        ([("Conv", "x one", "out")], None),
        ([SIGMOID, ("Conv", "p one", "out")], None),
        ([("Sigmoid", "x", "out", {"domain": "mine"})], None),
    ],
)
def test_a_graph_tells_what_bounds_its_output(ends: list, wanted: str | None) -> None:
    assert tell(*ends) == wanted


@pytest.mark.parametrize(
    ("ends", "channels", "wanted"),
    [
        ([("Softmax", "x", "out", {"axis": 1})], 2, "prob"),
        ([("Softmax", "x", "s", {"axis": 1}), ("Mul", "s top", "out")], 2, "prob255"),
        ([("Softmax", "x", "s", {"axis": 1}), ("Resize", "s", "out")], 2, "prob"),
        ([("Softmax", "x", "s", {"axis": 1}), ("Slice", "s", "out")], 1, "prob"),
        ([("Softmax", "x", "out", {"axis": 2})], 2, None),  # attention over rows
        ([("Sigmoid", "x", "out")], 2, None),  # which is the polyp's?
        ([("LogSoftmax", "x", "out", {"axis": 1})], 2, None),
    ],
)
def test_of_two_channels_a_softmax_alone_is_certain(ends: list, channels: int, wanted: str | None) -> None:
    assert tell(*ends, channels=channels) == wanted
