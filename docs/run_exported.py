"""Mark polyps with an exported ONNX file. Needs onnxruntime, numpy and Pillow, and nothing else of this project.

    python run_exported.py student.onnx frames/ masks/

Every picture in frames/ gets a mask of its own size in masks/. For research only: not a medical device.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

PICTURES = {".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp"}


def main(model: str, source: str, target: str) -> None:
    """Write a mask for every picture in `source`."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    side, threshold = int(facts["input_px"]), float(facts["threshold"])
    print(facts["notice"])
    print(f"{facts['student']} of run {json.loads(facts['provenance'])['run']}, {facts['parameters']} parameters")
    Path(target).mkdir(parents=True, exist_ok=True)
    for path in sorted(Path(source).iterdir()):
        if path.suffix.lower() not in PICTURES:
            continue
        with Image.open(path) as file:
            picture = ImageOps.exif_transpose(file).convert("RGB")
        if facts.get("output_size") == "frame":
            whole = session.run(["prob"], {"pictures": np.asarray(picture)[None]})[0][0]  # (height, width)
        else:
            pixels = np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR))
            prob = session.run(["prob"], {"pictures": pixels[None]})[0][0]  # (side, side)
            logits = np.log(prob / (1 - prob).clip(1e-7)).clip(-30, 30)
            whole = 1 / (
                1 + np.exp(-np.asarray(Image.fromarray(logits).resize(picture.size, Image.Resampling.BILINEAR)))
            )
        mask = whole >= threshold
        Image.fromarray(mask).save(Path(target) / f"{path.stem}.png")
        print(f"{path.name}: polyp on {mask.mean():.1%} of the frame")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
