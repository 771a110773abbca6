"""A cache in memory with the reader's own methods: painted discs as pictures, and features that a student can learn."""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from difom_cache.codecs import build_codec
from difom_cache.errors import CacheIncompleteError
from difom_cache.store import CacheIdentity, TapSpec, TeacherIdentity, describe_tap

SPLITS = ("train", "val", "test")
PARAM_NAMES = ["top", "pad"]


@dataclass
class MemoryCache:
    """`records` discs with `views` flips each; the last tenth is validation, with view 0 alone.

    Every tap of `taps` holds float16 codes: local means of the picture, mixed into `channels` by fixed random weights.
    """

    records: int = 20
    views: int = 2
    picture_px: int = 32
    taps: dict[str, TapSpec] = field(default_factory=dict)
    unlabelled: int = 0
    name: str = "memory"
    seed: int = 0
    weights: str = "a" * 64
    seen: dict[str, frozenset[str] | None] = field(default_factory=dict)
    dataset: str = ""

    def __post_init__(self) -> None:
        self.path = Path(self.name)
        rows = self.records * self.views
        plan = {"policy": "memory", "seed": 0, "views": self.views, "digest": "0" * 64, "params": list(PARAM_NAMES)}
        self.identity = CacheIdentity.build(
            replay=1, picture_px=self.picture_px, rows=rows, records=self.records, records_sha256="0" * 64, plan=plan
        )
        self.teachers = {
            label: self._identify(label) for label in dict.fromkeys(t.partition("/")[0] for t in self.taps)
        }
        self.has_pictures = True
        val = max(1, self.records // 5)
        split = np.array([0] * (self.records - val) + [1] * val, np.uint8)
        counts = np.where(split == 0, self.views, 1)
        record = np.repeat(np.arange(self.records, dtype=np.int32), counts)
        labelled = np.ones(self.records, np.uint8)
        labelled[: self.unlabelled] = 0
        lines = [
            {
                "id": f"{self.dataset or self.name}/{i:03d}",
                "dataset": self.dataset or self.name,
                "split": SPLITS[split[i]],
                "group": f"seq{i // 2}",
                "labelled": labelled[i],
                "image_sha256": sha256(f"{self.dataset or self.name} {self.seed} {i}".encode()).hexdigest(),
                "width": self.picture_px,
                "height": self.picture_px,
                "mask_sha256": f"{i:064d}",
            }
            for i in range(self.records)
        ]
        self.table = SimpleNamespace(
            records=lines,
            ids=[line["id"] for line in lines],
            record=record,
            view=np.concatenate([np.arange(count, dtype=np.int32) for count in counts]),
            split=split[record],
            labelled=labelled[record],
            params=np.zeros((len(record), len(PARAM_NAMES)), np.int32),
        )
        self._paint()
        self.finished = np.ones(len(record), bool)

    def _identify(self, label: str) -> TeacherIdentity:
        taps = [tap for name, tap in self.taps.items() if name.startswith(f"{label}/")]
        spec = {"name": label, "variant": "", "input_px": 8, "weights_digest": self.weights, "precision": "float32"}
        column = {"block_rows": 1, "compression": "none", "device": "cpu", "batch": 1, "threads": 1, "libraries": {}}
        described = [describe_tap(tap, build_codec("float16", tap.channels)) for tap in taps]
        return TeacherIdentity.build(teacher=spec | {"libraries": {}}, taps=described, **column)

    def __len__(self) -> int:
        return len(self.table.record)

    def finished_rows(self, taps=None, *, pictures=True):
        return self.finished

    def gather(self, rows, taps=None, out=None, *, pictures=True):
        rows = np.asarray(rows)
        if not self.finished[rows].all():
            raise CacheIncompleteError("asked for rows that are not there")
        kinds = ["image", "mask", "valid"] if pictures else []
        if out is not None and "valid" not in out:
            kinds = kinds[:2]
        names = kinds + [f"{tap}/code" for tap in (self.taps if taps is None else taps)]
        batch = {}
        for key in names:
            if out is None:
                batch[key] = self._arrays[key][rows]
            else:
                out[key][: len(rows)] = self._arrays[key][rows]
                batch[key] = out[key][: len(rows)]
        return batch

    def decode(self, tap, code, scale=None):
        return code.float() if hasattr(code, "float") else code.astype(np.float32)

    def stats(self, tap):
        return self._stats[tap]

    def seen_masks(self, label):
        return self.seen.get(label, frozenset())

    def content_digests(self):
        return {"cache": f"digest of {self.name} {self.seed}"}

    def _paint(self) -> None:
        rng = np.random.default_rng(self.seed)
        side = self.picture_px
        y, x = np.mgrid[:side, :side]
        image = rng.integers(60, 110, (self.records, side, side, 3))
        centre = rng.uniform(0.3 * side, 0.7 * side, (self.records, 2))
        radius = rng.uniform(0.15 * side, 0.3 * side, self.records)
        disc = np.hypot(y[None] - centre[:, :1, None], x[None] - centre[:, 1:, None]) < radius[:, None, None]
        image = np.where(disc[..., None], image + 100, image).astype(np.uint8)
        mask = disc.astype(np.uint8)
        mask[self.table.records[0]["labelled"] == 0 and np.arange(self.records) < self.unlabelled] = 255
        flip = self.table.view % 2 == 1
        picture, masks = image[self.table.record], mask[self.table.record]
        picture[flip], masks[flip] = picture[flip][:, :, ::-1], masks[flip][:, :, ::-1]
        self._arrays = {"image": picture, "mask": masks, "valid": np.ones_like(masks)}
        for number, (tap, spec) in enumerate(self.taps.items()):
            self._arrays[f"{tap}/code"] = self._features(picture, spec, number)

        self._stats = {tap: self._measure(tap) for tap in self.taps}

    def _measure(self, tap):
        code = self._arrays[f"{tap}/code"][self.table.split == 0].astype(np.float64)
        cells = code.transpose(0, 2, 3, 1).reshape(-1, code.shape[1])
        return SimpleNamespace(count=len(cells), mean=cells.mean(0), covariance=np.cov(cells.T, bias=True))

    def _features(self, picture, spec, number):
        cell = self.picture_px // spec.grid
        rows = len(picture)
        grey = picture.mean(-1).reshape(rows, spec.grid, cell, spec.grid, cell)
        local = np.stack([grey.mean((2, 4)), grey.std((2, 4)), grey.max((2, 4)), grey.min((2, 4))], axis=1) / 64
        weights = np.random.default_rng(100 + number).normal(size=(spec.channels, local.shape[1]))
        mixed = np.einsum("kc,nchw->nkhw", weights, local - local.mean((0, 2, 3), keepdims=True))
        return (mixed + 0.05 * np.random.default_rng(number).normal(size=mixed.shape)).astype(np.float16)
