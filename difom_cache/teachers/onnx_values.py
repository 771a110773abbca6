"""What an ONNX graph says for certain of an output: walked back from it to the operator that bounds its values."""

import math
from dataclasses import dataclass, replace
from typing import Any

import onnx
from onnx import numpy_helper

from difom_cache.teachers.outputs import Values

_BOUNDED = ("Sigmoid", "HardSigmoid", "Softmax")
_TRUE_OR_FALSE = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal", "And", "Or", "Xor", "Not")
_MOVE = ("Identity", "Dropout", "Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Slice", "Gather", "MaxPool")
"""Operators whose output holds values of their first input alone."""
_BLEND = ("Resize", "Upsample", "AveragePool")
_TOPS: tuple[tuple[float, Values], ...] = ((1.0, "prob"), (255.0, "prob255"))
_ROUNDING_FRAC = 1e-5  # of constants, which are float32 in a file
_SCALE = ("Mul", "Div", "Add", "Sub")
_INTEGERS = tuple(
    getattr(onnx.TensorProto, kind) for kind in ("BOOL", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64")
)


@dataclass(frozen=True)
class _Bounds:
    """The range of a map, whether it has but two values, and whether its channels add up to `high`."""

    low: float
    high: float
    two: bool = False
    adds_up: bool = False


def tell_by_graph(model: Any, output: str, channels: int) -> Values | None:
    """Return what an output's map is, or None where the graph alone does not say.

    Logits are never certain: a sigmoid may be written as other operators.
    """
    producers = {name: node for node in model.graph.node for name in node.output}
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    held |= {node.output[0]: node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"}
    bounds = _walk(output, producers, held)
    if bounds is None or (channels > 1 and not bounds.adds_up):
        return None
    for top, values in _TOPS:
        if abs(bounds.low) <= _ROUNDING_FRAC * top and abs(bounds.high - top) <= _ROUNDING_FRAC * top:
            return "mask" if bounds.two else values
    return None


def _walk(output: str, producers: dict[str, Any], held: dict[str, Any]) -> _Bounds | None:
    """Return the bounds of a tensor, or None: back to an operator that bounds, and forward again over those between."""
    between = []
    node = producers.get(output)
    while node is not None and node.domain in ("", "ai.onnx") and node.op_type not in (*_BOUNDED, *_TRUE_OR_FALSE):
        if node.op_type == "DequantizeLinear":  # as a pair with what rounded the very map
            node = producers.get(node.input[0])
            if node is None or node.op_type != "QuantizeLinear":
                return None
        elif node.op_type == "QuantizeLinear":  # codes, of which what follows may make anything
            return None
        inputs = [name for name in node.input if name not in held] if node.op_type in _SCALE else node.input[:1]
        if len(inputs) != 1:
            return None
        between.append(node)
        node = producers.get(inputs[0])
    if node is None or node.domain not in ("", "ai.onnx"):
        return None
    bounds: _Bounds | None = _Bounds(0.0, 1.0, two=node.op_type in _TRUE_OR_FALSE, adds_up=_is_over_channels(node))
    for each in reversed(between):
        bounds = bounds and _pass(each, bounds, held)
    return bounds


def _is_over_channels(node: Any) -> bool:
    axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), None)
    return node.op_type == "Softmax" and axis in (1, -3)


def _pass(node: Any, bounds: _Bounds, held: dict[str, Any]) -> _Bounds | None:
    """Return the bounds behind an operator, or None where it is not known."""
    kind = node.op_type
    if kind in _MOVE:
        return replace(bounds, adds_up=bounds.adds_up and kind not in ("Slice", "Gather"))
    if kind in (*_BLEND, "QuantizeLinear"):
        return replace(bounds, two=False)
    if kind == "Cast":
        to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
        return replace(bounds, two=bounds.two or (to in _INTEGERS and bounds.high - bounds.low <= 1))
    if kind in ("Round", "Floor", "Ceil"):
        return replace(bounds, two=bounds.two or bounds.high - bounds.low <= 1, adds_up=False)
    if kind == "Clip":
        low, high = (_number(node, place, held) for place in (1, 2))
        if low is None or high is None or low >= high:
            return None
        return replace(bounds, low=max(bounds.low, low), high=min(bounds.high, high))
    return _scale(node, bounds, held) if kind in _SCALE else None


def _number(node: Any, place: int, held: dict[str, Any]) -> float | None:
    """Return the single number that a Clip has as an input, or of old as an attribute; its absence is no bound."""
    old = {attribute.name: attribute.f for attribute in node.attribute}
    if len(node.input) <= place or not node.input[place]:
        return old.get("min", -math.inf) if place == 1 else old.get("max", math.inf)
    return _single(held.get(node.input[place]))


def _single(tensor: Any) -> float | None:
    if tensor is None:
        return None
    values = numpy_helper.to_array(tensor)
    return float(values.ravel()[0]) if values.size == 1 else None


def _scale(node: Any, bounds: _Bounds, held: dict[str, Any]) -> _Bounds | None:
    left, right = (_single(held.get(name)) for name in node.input)
    number = right if left is None else left
    if number is None or (node.op_type == "Div" and (left is not None or number == 0)):
        return None
    with_number = {
        "Mul": lambda value: value * number,
        "Div": lambda value: value / number,
        "Add": lambda value: value + number,
        "Sub": lambda value: value - number if left is None else number - value,
    }[node.op_type]
    low, high = sorted(with_number(value) for value in (bounds.low, bounds.high))
    return _Bounds(low, high, bounds.two, bounds.adds_up and node.op_type in ("Mul", "Div"))
