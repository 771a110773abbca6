"""What a cache holds against the teachers that filled it: views rendered and encoded again."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from difom_cache.data.manifest import Record
from difom_cache.errors import CacheFormatError, CacheIdentityError
from difom_cache.extraction.blocks import (
    BlockJob,
    TeacherOrderLine,
    ViewJob,
    assert_same_teacher,
    load_teacher,
    read_frame,
    render,
)
from difom_cache.hardware import torch_threads
from difom_cache.maintenance.verify_report import VerifyReport
from difom_cache.store.reader import Cache
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.params import ViewParams


def orders_of(cache: Cache, specs: Sequence[str], weights: str, device: str) -> list[TeacherOrderLine]:
    """Return how to build the teachers of a cache again; probes are no teachers that see pictures."""
    orders = []
    for label, identity in cache.teachers.items():
        held = identity["teacher"]
        if "probe" in identity:
            continue
        spec = next((s for s in specs if s.partition(":")[0].partition("@")[0] == held["name"]), None)
        if specs and spec is None:
            continue
        orders.append(
            TeacherOrderLine(
                spec=spec or f"{held['name']}:{held['variant']}@{held['input_px']}",
                weights=weights,
                taps=tuple(tap["name"] for tap in identity["taps"]) if label == held["name"] else None,
                strides=None,
                device=device,
                precision=held["precision"],
                picture_px=cache.picture_px,
            )
        )
    if not orders and not cache.teachers.keys() & set(specs) and specs:
        raise CacheFormatError(
            f"{cache.path} holds none of the teachers {', '.join(specs)}; it has {', '.join(cache.teachers)}"
        )
    return orders


def compare_live(
    cache: Cache,
    order: TeacherOrderLine,
    records: dict[str, Record],
    report: VerifyReport,
    *,
    views: int,
    seed: int,
    mirror: bool,
) -> None:
    """Encode random views again and compare them with their targets; the figures go into `report`, by tap."""
    teacher = load_teacher(order)
    label, identity = teacher.spec.label, cache.teachers[teacher.spec.label]
    assert_same_teacher(identity, teacher, BlockJob(cache.path, f"teachers/{label}", 0, len(cache), (), order))
    rows = np.random.default_rng(seed).permutation(len(cache))[:views]
    jobs = [view_of(cache, int(row), records) for row in rows]
    batch, device = identity["batch"], torch.device(order.device)
    cosines: dict[str, list[Tensor]] = {}
    errors: dict[str, list[float]] = {}
    mirrored: dict[str, list[Tensor]] = {}
    with torch_threads(identity["threads"]):
        for start in tqdm(range(0, len(jobs), batch), desc=f"recompute {label}", unit="batch", disable=None):
            part = jobs[start : start + batch]
            frames = [read_frame(job.record, masks=False) for job in part]
            pixels = render(part, frames, teacher.spec.input_px, batch, device)
            live = teacher.features(pixels)
            flipped = teacher.features(pixels.flip(-1)) if mirror else {}
            stored = cache.gather(
                rows[start : start + batch], [f"{label}/{tap['name']}" for tap in identity["taps"]], pictures=False
            )
            for request, tap in zip(teacher.spec.taps, identity["taps"], strict=True):
                name = f"{label}/{tap['name']}"
                target = torch.from_numpy(cache.decode(name, stored[f"{name}/code"], stored.get(f"{name}/scale")))
                feature = area_pool(live[request.native], tap["grid"])[: len(part)].cpu()
                cosines.setdefault(name, []).append(mean_removed_cosine(feature, target))
                errors.setdefault(name, []).append(float((feature - target).abs().max()))
                if mirror:
                    other = area_pool(flipped[request.native], tap["grid"])[: len(part)].cpu()
                    mirrored.setdefault(name, []).append(mean_removed_cosine(other, target.flip(-1)))
    for name, parts in cosines.items():
        cosine = torch.cat(parts)
        report.recomputed[name] = {
            "views": float(len(jobs)),
            "cosine_mean": float(cosine.mean()),
            "cosine_percentile_1": float(cosine.quantile(0.01)),
            "max_error": max(errors[name]),
        }
    report.mirrored |= {name: float(torch.cat(parts).mean()) for name, parts in mirrored.items()}


def view_of(cache: Cache, row: int, records: dict[str, Record]) -> ViewJob:
    """Return the view in a row with the record it was made of.

    Raises:
        CacheIdentityError: the data given lack the record, or hold another picture under its name.
    """
    line = cache.table.records[cache.table.record[row]]
    record = records.get(line["id"])
    if record is None:
        raise CacheIdentityError(
            f"{cache.path} holds record {line['id']}, which --data lack; give the data it was made of"
        )
    if record.image_sha256 != line["image_sha256"]:
        raise CacheIdentityError(
            f"{record.image} is not the picture that {cache.path} was made of: held {line['image_sha256'][:12]}, "
            f"found {record.image_sha256[:12]}"
        )
    return ViewJob(
        record, ViewParams.from_row(cache.table.params[row]), line["split"] == "train", int(cache.table.view[row])
    )


def mean_removed_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of every position (B*h*w,) of two maps (B, C, h, w), each about `one`'s mean over its positions.

    Of one channel a position has but a sign: there it is the cosine of whole maps, (B,).
    """
    mean = one.mean((2, 3), keepdim=True)
    if one.shape[1] == 1:
        one, other = (one - mean).flatten(1), (other - mean).flatten(1)
        return functional.cosine_similarity(one, other, dim=1)
    return functional.cosine_similarity(one - mean, other - mean, dim=1).flatten()
