"""What `difom_cache/teachers/teachers.json` must hold, from the networks themselves; as a program it writes the file anew."""

import json
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from typing import Any

import torch

from difom_cache.teachers import TABLE, TEACHERS, TeacherRequest, find_builder

ELSEWHERE = {"hf": ("MODEL", "the model's own"), "onnx": ("FILE", "the file's own")}
"""Teachers that are what a user names: how the table names it, and whose licence."""


def describe_all() -> Iterator[dict[str, Any]]:
    """Yield the entry of every teacher and size of this package."""
    for name in TEACHERS:
        if name in ELSEWHERE:
            place, licence = ELSEWHERE[name]
            unknown = dict.fromkeys(("parameters", "input_px", "multiple_px", "mean", "std", "weights")) | {
                "taps": [],
                "default_taps": [],
            }
            yield {"teacher": f"{name}:{place}", "default": False, "licence": licence} | unknown
            continue
        build = find_builder(name)
        family = getattr(build, "__self__", None)
        file = import_module(build.__module__)  # where a builder is a function, as sam's, its file names the same
        sizes = file.VARIANTS if family is None else family.sizes
        default = file.DEFAULT_VARIANT if family is None else family.default
        for size, about in sizes.items():
            request = TeacherRequest(name, size, weights="random")
            with torch.device("meta"):
                if family is None:
                    plain = build(request).spec
                    native, defaults, multiple_px = plain.native, plain.taps, file.PATCH_PX
                else:
                    config = about.config()
                    native, defaults, multiple_px = (
                        of(config) for of in (family.native, family.default_taps, family.multiple_px)
                    )
                teacher = build(replace(request, taps=tuple(f"{tap}@native" for tap in native)))
                spec, network = teacher.spec, teacher.network
            yield {
                "teacher": f"{name}:{size}",
                "default": size == default,
                "parameters": sum(p.numel() for key, p in network.named_parameters() if "key_projections" not in key),
                "input_px": spec.input_px,
                "multiple_px": multiple_px,
                "mean": list(spec.mean),
                "std": list(spec.std),
                "taps": [[tap.name, tap.channels, tap.stride_native] for tap in spec.native.values()],
                "default_taps": [tap.name for tap in defaults],
                "weights": about.repository or None,
                "licence": spec.licence,
            }


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in describe_all())
    TABLE.write_text(f"[\n{lines}\n]\n", "utf-8")
