"""What `difom_train/students/students.json` must hold, from the networks themselves; as a program it writes the file anew."""

import json
from collections.abc import Iterator
from typing import Any

from difom_train import build_student
from difom_train.students import STUDENTS, TABLE, count_parameters, default_weights


def describe_all() -> Iterator[dict[str, Any]]:
    """Yield the entry of every student of this package."""
    for name in STUDENTS:
        student = build_student(name, weights="random", seed=0)
        yield {
            "student": name,
            "parameters": count_parameters(student),
            "levels": {
                level: {"channels": at.channels, "stride_px": at.stride} for level, at in student.levels.items()
            },
            "starts_from": default_weights(name),
            "loss": student.loss_name,
            "from": "difom",
        }
    smp = "smp:ARCH/ENCODER"
    yield {"student": smp, "starts_from": default_weights(smp), "from": "segmentation-models-pytorch"}


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(entry, separators=(",", ":")) for entry in describe_all())
    TABLE.write_text(f"[\n{lines}\n]\n", "utf-8")
