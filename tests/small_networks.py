"""Small files that stand for what users bring: an ONNX graph, a folder in transformers' format."""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from transformers import ViTConfig, ViTModel
from transformers.utils import logging

from difom_cache.teachers import fill_random


def save_onnx(path: Path, *, size: int | str = "side", batch: int | str = "batch", sigmoid: bool = False) -> Path:
    """Save a segmenter of three stages (strides 4, 8, 16) with one output `mask` at stride 4, and return its path."""
    own = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array((own.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype("f4"), name)

    nodes = [
        helper.make_node("Conv", ["pixels", "w4"], ["c4"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Relu", ["c4"], ["/stage4/Relu"]),
        helper.make_node("Conv", ["/stage4/Relu", "w8"], ["c8"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Relu", ["c8"], ["/stage8/Relu"]),
        helper.make_node("Conv", ["/stage8/Relu", "w16"], ["/stage16/Conv"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["/stage4/Relu", "w1", "b1"], ["score"], kernel_shape=[1, 1]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["score"], ["mask"]),
        helper.make_node("GlobalAveragePool", ["/stage16/Conv"], ["pooled"]),
    ]
    outputs = [
        helper.make_tensor_value_info("mask", TensorProto.FLOAT, [batch, 1, "rows", "columns"]),
        helper.make_tensor_value_info("pooled", TensorProto.FLOAT, [batch, 16, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "segmenter",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch, 3, size, size])],
        outputs,
        [
            weight("w4", 6, 3, 4, 4),
            weight("w8", 8, 6, 2, 2),
            weight("w16", 16, 8, 2, 2),
            weight("w1", 1, 6, 1, 1),
            numpy_helper.from_array(np.array([-0.5], "f4"), "b1"),  # the background's: logits go below zero
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def save_vit(folder: Path) -> Path:
    """Save a small ViT in transformers' format, 16 px patches at 64 px, and return its folder."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=64, patch_size=16
    )
    model = ViTModel(config)
    fill_random(model, "vit")
    model.save_pretrained(folder)
    numbers = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (folder / "preprocessor_config.json").write_text(json.dumps(numbers))
    return folder
