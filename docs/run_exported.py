"""Mark polyps with an exported ONNX file. Needs onnxruntime, NumPy and Pillow alone.

    python run_exported.py student.onnx frames/ masks/

Every image in frames/ gets a mask of its own size in masks/.
For research only: not a medical device.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

BILINEAR = Image.Resampling.BILINEAR
SUFFIXES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


def main(model: str, source: str, target: str) -> None:
    """Write a mask for every image in `source`."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    side, threshold = int(facts["input_px"]), float(facts["threshold"])
    print(facts["notice"])
    run = json.loads(facts["provenance"])["run"]
    print(f"{facts['student']} of run {run}, {facts['parameters']} parameters")
    Path(target).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(source).iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
        if facts.get("output_size") == "frame":
            pixels = np.asarray(image)[None]
            whole = session.run(["prob"], {"pictures": pixels})[0][0]  # (height, width)
        else:
            pixels = np.asarray(image.resize((side, side), BILINEAR))[None]
            prob = session.run(["prob"], {"pictures": pixels})[0][0]  # (side, side)
            logits = np.log(prob / (1 - prob).clip(1e-7)).clip(-30, 30)
            resized = Image.fromarray(logits).resize(image.size, BILINEAR)
            whole = 1 / (1 + np.exp(-np.asarray(resized)))
        mask = whole >= threshold
        Image.fromarray(mask).save(Path(target) / f"{path.stem}.png")
        print(f"{path.name}: polyp on {mask.mean():.1%} of the frame")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
