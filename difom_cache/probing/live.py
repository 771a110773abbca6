"""A probe as one network: teachers and heads together, from any image to logits."""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from difom_cache.base import disk
from difom_cache.base.errors import CacheFormatError, CacheIdentityError, CacheIncompleteError
from difom_cache.base.hardware import resolve_device
from difom_cache.extraction.begun import OPENVINO, TORCH
from difom_cache.extraction.requests import PLACES, requests_of
from difom_cache.extraction.teachers import load_teacher
from difom_cache.probing.cells import FeatureReader
from difom_cache.probing.heads import Heads, read_heads
from difom_cache.store.layout import HEADS, teacher_folder
from difom_cache.store.reader import Cache, open_cache, require_teacher
from difom_cache.store.schema import SpecHeld
from difom_cache.teachers.base import Teacher, TeacherRequest, has_openvino
from difom_cache.teachers.pooling import area_pool

DECIDES = ("weights_digest", "input_px", "mean", "std", "interpolation")  # of a teacher's identity; versions may differ


class LiveProbe:
    """A probe with the teachers that it reads.

    Attributes:
        label: of its column.
        input_px: side of its input, the largest of its teachers'.
        digest: of everything that decides its logits.
        masks: of the masks that its heads learnt from, SHA-256 each; None where nobody knows all.
        is_random: whether nobody trained the weights of a teacher.
        device: where it stands.
    """

    def __init__(
        self,
        cache: Cache,
        label: str,
        heads: Heads,
        reader: FeatureReader,
        teachers: Mapping[str, Teacher],
        device: str,
    ) -> None:
        self._cache, self._heads, self._reader, self._teachers = cache, heads, reader, dict(teachers)
        self.label, self.device = label, device
        self.input_px = max(teacher.spec.input_px for teacher in teachers.values())
        identity = cache.teachers[label]
        self.digest = hashlib.sha256(f"{identity.teacher.weights_digest}\n{heads.digest}".encode()).hexdigest()
        self.masks = cache.seen_masks(label)
        self.is_random = identity.teacher.weights is not None

    @torch.no_grad()
    def logits(self, pixels: Tensor) -> Tensor:
        """Return (B, 1, h, w) float32, the mean of all heads, as the cache's logits of rows in no fold.

        Args:
            pixels: (B, 3, input_px, input_px) float32 in [0, 1], on the device. A teacher with a smaller input sees them
                resized once more.
        """
        targets = {}
        for label, teacher in self._teachers.items():
            side = teacher.spec.input_px
            shown = pixels
            if side < self.input_px:
                shown = functional.interpolate(
                    pixels, size=(side, side), mode="bilinear", align_corners=False, antialias=True
                )
            native = teacher.features(shown)
            for kept in teacher.spec.taps:
                tap = f"{label}/{kept.name}"
                if tap in self._reader.taps:
                    codec = self._cache.codec(tap)
                    feature = area_pool(native[kept.native].cpu(), self._cache.taps[tap].grid)
                    targets[tap] = codec.decode(*codec.encode(feature))  # heads have learnt from what a code gives back
        logits = self._heads.mean(self._reader.standardise(targets))
        return logits.to(pixels.device)


def load_probe(cache: str | Path, label: str, *, device: str = "auto") -> LiveProbe:
    """Return a cache's probe as a network of its own, its teachers built as the cache says.

    Args:
        cache: its folder.
        label: of the probe's column; it need not be finished.
        device: where the teachers stand; heads are computed on the CPU.

    Raises:
        CacheFormatError: there is no such column, or it is no probe.
        CacheIncompleteError: its heads were not fitted yet, or a teacher that it reads is not in the cache.
        CacheIdentityError: a teacher's weights are not those that the cache holds features of.
        WeightsError: a teacher's weights are out of reach.
    """
    opened, chosen = open_cache(cache), str(resolve_device(device))
    identity = require_teacher(opened, label)
    facts = identity.probe
    if facts is None:
        known = [each for each, held in opened.teachers.items() if held.probe is not None]
        raise CacheFormatError(f"{opened.path}: {label} is no probe; its probes: {', '.join(known) or 'none'}")
    taps = [f"{teacher}/{name}" for teacher, read in facts.reads.items() for name in read.taps]
    absent = [tap for tap in taps if tap not in opened.taps]
    folder = opened.path / teacher_folder(label)
    if absent or not disk.is_there(folder / HEADS):
        what = f"{absent[0]}, which it reads, is not in this cache" if absent else "its heads are not fitted yet"
        raise CacheIncompleteError(f"{folder}: {what}; run `difom-cache probe` where its teachers are, to its end")
    grid = identity.taps[0].grid
    heads = read_heads(folder, facts.head, grid)
    reader = FeatureReader(opened, taps, min(grid, max(opened.taps[tap].grid for tap in taps)))
    return LiveProbe(opened, label, heads, reader, _load_teachers(opened, list(facts.reads), device), chosen)


def _load_teachers(cache: Cache, labels: list[str], device: str) -> dict[str, Teacher]:
    requests = requests_of(cache, [_name(cache.teachers[label].teacher) for label in labels], (), device)
    teachers = {}
    for label in labels:
        teachers[label] = load_teacher(_fit_machine(requests[label]))
        found = teachers[label].spec.identity()
        differing = [key for key in DECIDES if cache.teachers[label].to_dict()["teacher"].get(key) != found[key]]
        if differing:
            raise CacheIdentityError(
                f"{cache.path}: the {label} that is found today is not the one whose features it holds (another "
                f"{', '.join(differing)}); put back the weights that it was made with"
            )
    return teachers


def _name(teacher: SpecHeld) -> str:
    return teacher.name if teacher.name in PLACES else f"{teacher.name}:{teacher.variant}"


def _fit_machine(request: TeacherRequest) -> TeacherRequest:
    """Return the request with PyTorch in place of an OpenVINO that cannot run here; features differ by rounding."""
    fits = has_openvino() and torch.device(request.device).type == "cpu"
    return replace(request, backend=TORCH) if request.backend == OPENVINO and not fits else request
