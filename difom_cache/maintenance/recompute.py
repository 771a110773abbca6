"""What a cache holds against the teachers that filled it: views encoded again, and maps of view 0 warped to other views."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difom_cache.base.errors import CacheIdentityError, CacheIncompleteError
from difom_cache.base.hardware import explain_memory, torch_threads
from difom_cache.base.progress import track
from difom_cache.data.record import Record
from difom_cache.extraction.frames import read_frame
from difom_cache.extraction.jobs import ViewJob
from difom_cache.extraction.passes import render
from difom_cache.extraction.requests import PLACES
from difom_cache.extraction.teachers import assert_same_teacher, load_teacher
from difom_cache.maintenance.options import VerifyConfig
from difom_cache.maintenance.verify_report import VerifyReport
from difom_cache.probing.cells import dice_of, valid_cells
from difom_cache.store.layout import teacher_folder
from difom_cache.store.reader import Cache
from difom_cache.teachers.base import TeacherRequest
from difom_cache.teachers.pooling import area_pool
from difom_cache.views.params import ViewParams
from difom_cache.views.warp import warp_view


@explain_memory("Give the GPU to this command alone, or choose --device cpu")
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
    names = [f"{label}/{tap.name}" for tap in identity.taps]
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
            stored = cache.gather(rows[start : start + batch], names, pictures=False)
            for tap in identity.taps:  # fewer than the teacher has, in a copy
                name, native = f"{label}/{tap.name}", kept[tap.name].native
                target = torch.from_numpy(cache.target(stored, name))
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
    params = ViewParams.from_row(cache.table.params[row])
    return ViewJob(record, params, line["split"] == "train", int(cache.table.view[row]))


def mean_removed_cosine(one: Tensor, other: Tensor) -> Tensor:
    """Return the cosine of every position (B*h*w,) of two maps (B, C, h, w), each about `one`'s mean over its positions.

    Of one channel a position has but a sign: there it is the cosine of whole maps, (B,).
    """
    mean = one.mean((2, 3), keepdim=True)
    if one.shape[1] == 1:
        one, other = (one - mean).flatten(1), (other - mean).flatten(1)
        return functional.cosine_similarity(one, other, dim=1)
    return functional.cosine_similarity(one - mean, other - mean, dim=1).flatten()


PART_VIEWS = 16
VIEWS = 128  # compared by default

Figures = dict[str, dict[str, float]]


def compare_warped(cache: Cache, *, views: int, seed: int) -> Figures:
    """Return, for each tap, how near view 0's map, warped by known geometry, is to the map of the view as it was encoded.

    Args:
        cache: with several views of a record.
        views: drawn from all but views 0.
        seed: of the draw.

    Returns:
        Tap to `views`, `cosine` (mean over positions of valid cells, each map about its own mean; of one channel over whole maps)
        and, of logits of one class where there are masks, `dice_encoded` and `dice_warped` against the stored masks.

    Raises:
        CacheIncompleteError: the cache has no view but 0.
    """
    rows, firsts = pair_rows(cache)
    if not len(rows):
        raise CacheIncompleteError(
            f"{cache.path} holds no view but 0, so there is nothing to compare warped maps with; extract a part of the "
            "records with --views 8 --limit 100 into another cache"
        )
    chosen = np.sort(np.random.default_rng(seed).permutation(len(rows))[:views])
    rows, firsts = rows[chosen], firsts[chosen]
    params = [ViewParams.from_row(cache.table.params[row]) for row in rows]
    lines = [cache.table.records[cache.table.record[row]] for row in rows]
    sizes = [(int(line["width"]), int(line["height"])) for line in lines]
    figures: Figures = {}
    for tap in cache.taps:
        sums: dict[str, list[Tensor]] = {}
        for start in range(0, len(rows), PART_VIEWS):
            part = slice(start, start + PART_VIEWS)
            encoded, whole = read_target(cache, tap, rows[part]), read_target(cache, tap, firsts[part])
            warped = warp_view(whole, params[part], sizes[part])
            inside = valid_cells(cache, rows[part], encoded.shape[-1])
            sums.setdefault("cosine", []).append(centred_cosine(encoded, warped, inside))
            if cache.taps[tap].kind == "logits" and encoded.shape[1] == 1 and cache.has_pictures:
                batch = cache.gather(rows[part], [])
                mask, valid = (torch.from_numpy(np.array(batch[name])) for name in ("mask", "valid"))
                known = torch.from_numpy(cache.table.labelled[rows[part]] > 0)
                for name, logits in (("dice_encoded", encoded), ("dice_warped", warped)):
                    sums.setdefault(name, []).append(dice_of(logits, mask, valid)[known])
        figures[tap] = {"views": float(len(rows))} | {name: float(torch.cat(v).mean()) for name, v in sums.items()}
    return figures


def pair_rows(cache: Cache) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of all views but 0, and for each the row of view 0 of its record."""
    table = cache.table
    first = {int(table.record[row]): int(row) for row in np.flatnonzero(table.view == 0)}
    rows = np.array([row for row in np.flatnonzero(table.view > 0) if int(table.record[row]) in first], dtype=np.int64)
    return rows, np.array([first[int(table.record[row])] for row in rows], dtype=np.int64)


def read_target(cache: Cache, tap: str, rows: NDArray[np.int64]) -> Tensor:
    """Return a tap's targets (B, C, h, w) float32."""
    return torch.from_numpy(cache.target(cache.gather(rows, [tap], pictures=False), tap))


def centred_cosine(one: Tensor, other: Tensor, inside: Tensor) -> Tensor:
    """Return cosines of the positions that are inside, each map about its mean over them; of one channel, of whole maps."""
    weight = inside[:, None].float()
    count = weight.sum((2, 3), keepdim=True).clamp(min=1)
    one, other = (x - (x * weight).sum((2, 3), keepdim=True) / count for x in (one, other))
    if one.shape[1] == 1:
        return functional.cosine_similarity((one * weight).flatten(1), (other * weight).flatten(1), dim=1)
    return functional.cosine_similarity(one, other, dim=1)[inside]
