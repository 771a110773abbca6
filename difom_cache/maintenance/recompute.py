"""What a cache holds against the teachers that filled it: views rendered and encoded again."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.base.errors import CacheIdentityError
from difom_cache.base.hardware import torch_threads
from difom_cache.base.progress import track
from difom_cache.data.record import Record
from difom_cache.extraction.jobs import ViewJob, read_frame
from difom_cache.extraction.passes import render
from difom_cache.extraction.requests import PLACES
from difom_cache.extraction.teachers import assert_same_teacher, load_teacher
from difom_cache.maintenance.options import VerifyConfig
from difom_cache.maintenance.verify_report import VerifyReport
from difom_cache.store.layout import teacher_folder
from difom_cache.store.reader import Cache
from difom_cache.teachers.base import TeacherRequest
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.params import ViewParams


def compare_live(
    cache: Cache,
    label: str,
    request: TeacherRequest,
    records: dict[str, Record],
    report: VerifyReport,
    config: VerifyConfig,
) -> None:
    """Encode random views again and compare them with their targets; the figures go into `report`, by tap."""
    teacher, identity = load_teacher(request), cache.teachers[label]
    spec = teacher.spec
    if spec.name in PLACES:  # a file may have another name by now; the digest tells whether it is the same
        spec = replace(spec, variant=identity.teacher.variant)
    assert_same_teacher(identity, spec, cache.path / teacher_folder(label))
    kept = {tap.name: tap for tap in teacher.spec.taps}
    rows = np.random.default_rng(config.seed).permutation(len(cache))[: config.recompute]
    jobs = [view_of(cache, int(row), records) for row in rows]
    batch, device = identity.batch, torch.device(request.device)
    cosines: dict[str, list[Tensor]] = {}
    errors: dict[str, list[float]] = {}
    mirrored: dict[str, list[Tensor]] = {}
    with torch_threads(identity.threads):
        for start in track(range(0, len(jobs), batch), f"recompute {label}", "batch"):
            part = jobs[start : start + batch]
            frames = [read_frame(job.record, masks=False) for job in part]
            pixels = render(part, frames, teacher.spec.input_px, batch, device)
            live = teacher.features(pixels)
            flipped = teacher.features(pixels.flip(-1)) if config.equivariance else {}
            stored = cache.gather(
                rows[start : start + batch], [f"{label}/{tap.name}" for tap in identity.taps], pictures=False
            )
            for tap in identity.taps:  # fewer than the teacher has, in a copy
                name, native = f"{label}/{tap.name}", kept[tap.name].native
                target = torch.from_numpy(cache.decode(name, stored[f"{name}/code"], stored.get(f"{name}/scale")))
                feature = area_pool(live[native], tap.grid)[: len(part)].cpu()
                cosines.setdefault(name, []).append(mean_removed_cosine(feature, target))
                errors.setdefault(name, []).append(float((feature - target).abs().max()))
                if config.equivariance:
                    other = area_pool(flipped[native], tap.grid)[: len(part)].cpu()
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
