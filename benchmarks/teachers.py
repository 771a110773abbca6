"""Images a second from JPEG files to stored bytes, three ways, and what the device could do at most.

`notebook`: the library's network in float32, one image after the other, a `.pt` file each, as published.
`library`: the same network at its best plain use: batches, its own fused attention, bfloat16 on CUDA, float16 files.
`difom`: `extract`, into a cache, with each backend and precision that is asked for.

All read the same files, one view an image, and write to the same disk. Each way's network is built once; then the ways
alternate, and medians are reported. What is done once before the first image, such as loading or compiling a network, is not
counted. A way's peak memory is what it held beyond the networks of the ways before it.
"""

import statistics
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader, Dataset

from benchmarks.library_teachers import build_plain
from benchmarks.measure import measure_matmul, peak_of, seconds_of
from benchmarks.options import TeacherConfig
from difom_cache import Record, load_records, write_manifest
from difom_cache.base.errors import DifomWarning
from difom_cache.base.hardware import is_out_of_memory, name_device, resolve_device
from difom_cache.base.options import build
from difom_cache.base.progress import track
from difom_cache.base.text import count_of, format_table
from difom_cache.extraction import choose_backend, load_teacher, own_teachers, probe_batch
from difom_cache.extraction.options import ExtractConfig
from difom_cache.extraction.requests import request_teachers
from difom_cache.extraction.run import run_extraction
from difom_cache.teachers import Precision, TeacherRequest, TeacherSpec, normalise, parse_teacher
from difom_cache.teachers.catalogue import OWN_WEIGHTS
from difom_train.evaluation import count_flops

WAYS = ("notebook", "library", "difom")
LOADER_WORKERS = 8  # of the library's way on CUDA; on the CPU they would only take cores from the network


@dataclass(frozen=True)
class TeacherSpeeds:
    """What was measured of one teacher.

    Attributes:
        about: teacher, device, precision, batch, numbers of images, and the two figures of the ceiling.
        ways: of each way its seconds, rates, batch and peak, and how near its features are to the network's in float32.
    """

    about: dict[str, Any]
    ways: dict[str, dict[str, Any]]

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return self.about | {"ways": self.ways}

    def render(self) -> str:
        """Return a table and a sentence on the share of the device's ceiling."""
        about = self.about
        rows = [["way", "JPEG to bytes", f"all {about['pictures']}", "network alone", "batch", "cosine", "peak memory"]]
        for name, way in self.ways.items():
            hours = f"{about['pictures'] / way['images_per_s'] / 3600:.2f} h"
            rates = [f"{way[key]:.2f} i/s" for key in ("images_per_s", "network_images_per_s")]
            cosine = f"{way['cosine']:.6f}" if "cosine" in way else "-"
            peak = f"{way['peak_bytes'] / 2**30:.2f} GiB" if way["peak_bytes"] is not None else "-"
            rows.append([name, rates[0], hours, rates[1], str(way["batch"]), cosine, peak])
        ceiling, flops = about["matmul_flops_per_s"], about["flops_per_image"]
        lines = [
            f"{about['teacher']} on {about['device']}, {count_of(about['threads'], 'thread')}, {about['precision']}, "
            f"batch {about['batch']}, {about['views']} images",
            format_table(rows),
            f"{flops / 1e9:.1f} GFLOP an image; matrix products reach {ceiling / 1e12:.2f} TFLOP/s here",
        ]
        if ours := self.ways.get("difom"):
            share = flops * ours["network_images_per_s"] / ceiling
            whole = ours["images_per_s"] / ours["network_images_per_s"]
            lines.append(
                f"ours: {share:.0%} of that in the network, {whole:.0%} of the network's speed from JPEG to bytes"
            )
        return "\n".join(lines)


@dataclass(frozen=True)
class Rig:
    """What every way of one benchmark shares.

    Attributes:
        teacher: `NAME[:VARIANT][@PX]`.
        weights: "hub", "random" or a path.
        records: the images.
        device: where networks run.
        batch: of the library's way and ours.
        folder: for everything that is written.
        spec: of our teacher; its precision is the library's way's too.
        pixels: two batches (batch, 3, S, S) of random numbers in [0, 1], on the device, that take turns.
    """

    teacher: str
    weights: str
    records: tuple[Record, ...]
    device: torch.device
    batch: int
    folder: Path
    spec: TeacherSpec
    pixels: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Way:
    """One way to do the work.

    Attributes:
        whole: does all images, from files to stored bytes, and returns the seconds that they took.
        network: takes a batch (B, 3, S, S) of pixels in [0, 1].
        batch: B.
        features: of such a batch, by native tap name; None where they are not compared.
    """

    whole: Callable[[], float]
    network: Callable[[Tensor], object]
    batch: int
    features: Callable[[Tensor], Mapping[str, Tensor]] | None = None


def bench_teacher(config: TeacherConfig) -> TeacherSpeeds:
    """Return images a second of each way, from JPEG to stored bytes and of the network alone.

    Raises:
        DifomError: whatever the user can fix, in one line.
    """
    device = resolve_device(config.device)
    weights = config.weights or ("hub" if parse_teacher(config.teacher).name in OWN_WEIGHTS else "random")
    records, count = choose_images(config.data, config.views)
    with tempfile.TemporaryDirectory(prefix="difom-bench-") as name, own_teachers():
        folder = Path(name)
        write_manifest(records, folder / "pictures.csv")
        ours = load_teacher(_request(_ask(config.teacher, weights, device, folder, next(iter(config.precision), None))))
        batch = min(config.views, config.batch_size or probe_batch(ours, str(device)))
        shape, generator = (batch, 3, ours.spec.input_px, ours.spec.input_px), torch.Generator().manual_seed(0)
        first, second = (torch.rand(shape, generator=generator).to(device) for _ in range(2))
        rig = Rig(config.teacher, weights, records, device, batch, folder, ours.spec, (first, second))
        with sdpa_kernel(SDPBackend.MATH):  # fused kernels would hide their products from the counter
            flops = count_flops(ours.features, first[:1])
        about = {
            "teacher": f"{rig.spec.name}:{rig.spec.variant}@{rig.spec.input_px}",
            "device": name_device(device),
            "threads": torch.get_num_threads(),
            "precision": rig.spec.precision,
            "batch": batch,
            "views": len(records),
            "pictures": count,
            "torch": torch.__version__,
            "flops_per_image": flops,
            "matmul_flops_per_s": measure_matmul(device, rig.spec.precision),
        }
        return TeacherSpeeds(about, _alternate(rig, config))


def choose_images(data: Path, count: int) -> tuple[tuple[Record, ...], int]:
    """Return `count` records of `data`, whatever their split, as training records, over and over where there are fewer.

    Also how many there are.
    """
    records = load_records(data, unlabelled=True)
    chosen = [
        replace(each, id=f"{number:06d}/{each.id}", split="train") for number, each in zip(range(count), cycle(records))
    ]
    return tuple(chosen), len(records)


def _alternate(rig: Rig, config: TeacherConfig) -> dict[str, dict[str, Any]]:
    """Return medians of rounds, every round running all ways; a first run of each warms up, compares, and shows its peak."""
    compared = _plain_features(rig) if "difom" in config.ways else None
    ways: dict[str, Way] = {}
    lines: dict[str, dict[str, Any]] = {}
    for name, open_way in list_ways(rig, config).items():
        with peak_of(rig.device) as peak:
            ways[name] = way = open_way()
            way.whole()
        lines[name] = {"whole_s": [], "network_s": [], "batch": way.batch, "peak_bytes": peak.held_bytes}
        if compared and way.features:
            pixels, expected = compared
            lines[name] |= {"cosine": _compare_features(way.features(pixels), expected)}
    for _ in track(range(config.repeats), f"bench {rig.teacher}", "round"):
        for name, way in ways.items():
            lines[name]["whole_s"].append(way.whole())
            lines[name]["network_s"].append(_time_network(way, rig))
    for line in lines.values():
        line["images_per_s"] = len(rig.records) / statistics.median(line["whole_s"])
        line["network_images_per_s"] = len(rig.records) / statistics.median(line["network_s"])
    return lines


@torch.no_grad()
def _time_network(way: Way, rig: Rig) -> float:
    """Return the seconds of a way's network for as many images as there are, whose pixels lie on the device before; warmed up."""
    starts = range(0, len(rig.records), way.batch)
    batches = [each[: min(way.batch, len(rig.records) - start)] for start, each in zip(starts, cycle(rig.pixels))]
    way.network(batches[0])
    return seconds_of(lambda: [way.network(each) for each in batches], rig.device)


def list_ways(rig: Rig, config: TeacherConfig) -> dict[str, Callable[[], Way]]:
    """Return what opens each way that was asked for, by name.

    Raises:
        SettingsError: a backend is not installed, or cannot take the teacher.
    """
    ways: dict[str, Callable[[], Way]] = {}
    if "notebook" in config.ways:
        ways["notebook"] = partial(_open_plain, rig, torch.float32, 1)
    if "library" in config.ways:
        dtype = torch.bfloat16 if rig.spec.precision == "bfloat16" else torch.float32
        ways["library"] = partial(_open_plain, rig, dtype, rig.batch)
    if "difom" in config.ways:
        kinds = list(product(config.backend or (None,), config.precision or (None,)))
        for backend, precision in kinds:
            asked = _ask(rig.teacher, rig.weights, rig.device, rig.folder, precision)
            asked = asked.model_copy(update={"backend": backend, "batch_size": rig.batch})
            name = "difom" if len(kinds) == 1 else f"difom {backend} {precision or rig.spec.precision}"
            ways[name] = partial(_open_ours, rig, asked)
    return ways


def _ask(
    teacher: str, weights: str, device: torch.device, folder: Path, precision: Precision | None = None
) -> ExtractConfig:
    """Return the pass over the images, as it is asked for; None leaves the precision to the device."""
    options = {
        "teacher": teacher,
        "data": folder / "pictures.csv",
        "weights": weights,
        "views": 1,
        "split": "train",
        "unlabelled": True,
        "pictures": False,
        "device": str(device),
        "precision": precision,
    }
    return build(ExtractConfig, options)


def _request(config: ExtractConfig) -> TeacherRequest:
    (request,) = request_teachers(config, config.device)
    return request


def _open_ours(rig: Rig, config: ExtractConfig) -> Way:
    """Return ours; its teacher is the one that the pass over all images finds held."""
    request = choose_backend(_request(config), None, rig.batch)
    config = config.model_copy(update={"backend": request.backend})

    def features(pixels: Tensor) -> Mapping[str, Tensor]:
        return load_teacher(request).features(pixels)  # held, and back on its GPU where another one was there since

    return Way(partial(_extract, rig, config), features, rig.batch, features)


def _extract(rig: Rig, config: ExtractConfig) -> float:
    with tempfile.TemporaryDirectory(dir=rig.folder) as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".* keeps its splits", DifomWarning)  # all were made training images
        report = run_extraction(config.model_copy(update={"cache": Path(folder) / "feats"}), quiet=True)
    return sum(report.wall_s.values())


def _plain_features(rig: Rig) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return a batch of images, and what the network makes of it in PyTorch and float32."""
    request = _request(_ask(rig.teacher, rig.weights, rig.device, rig.folder))
    request = replace(request, precision=None if rig.spec.precision == "float32" else "float32", backend="torch")
    images = Images(rig.records[: rig.batch], rig.spec.input_px)
    pixels = torch.stack([images[number] for number in range(len(images))]).to(rig.device)
    return pixels, load_teacher(request).features(pixels)


def _compare_features(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the least over maps of the mean over cells of the cosine of features, each about its image's mean."""
    about = [(x - x.mean((2, 3), keepdim=True) for x in (found[name], expected[name])) for name in expected]
    return min(float(cosine_similarity(ours, theirs, dim=1).mean()) for ours, theirs in about)


@torch.no_grad()
def _open_plain(rig: Rig, dtype: torch.dtype, batch: int) -> Way:
    """Return the library's way; its batch is halved until it fits, as its plain attention takes more memory than ours."""
    network, forward = build_plain(rig.teacher, rig.weights, rig.device)
    network = network.eval().requires_grad_(False).to(rig.device, dtype)

    def run(pixels: Tensor) -> list[Tensor]:
        return forward(network, normalise(pixels, rig.spec.mean, rig.spec.std).to(dtype))

    batch = fit_batch(run, rig.pixels[0][:batch])
    store = partial(_store_plainly, rig, run, batch, torch.float32 if batch == 1 else torch.float16)
    return Way(partial(seconds_of, store, rig.device), run, batch)


def fit_batch(run: Callable[[Tensor], object], pixels: Tensor) -> int:
    """Return how many of `pixels` the device has memory for at once: all, or the first half, or a half of that.

    Raises:
        RuntimeError: not even one fits.
    """
    for batch in (len(pixels) >> halved for halved in range(len(pixels).bit_length())):
        try:
            run(pixels[:batch])
        except RuntimeError as error:
            if batch == 1 or not is_out_of_memory(error):
                raise
        else:
            break
        if pixels.is_cuda:
            torch.cuda.empty_cache()
    return batch


class Images(Dataset[Tensor]):
    """Images as a user of the library reads them: float32 (3, S, S) in [0, 1]."""

    def __init__(self, records: Sequence[Record], input_px: int) -> None:
        self.records = records
        self.input_px = input_px

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.records[index].image) as image:
            side = (self.input_px, self.input_px)
            pixels = np.array(image.convert("RGB").resize(side, Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255  # (S, S, 3) -> (3, S, S)


@torch.no_grad()
def _store_plainly(rig: Rig, run: Callable[[Tensor], list[Tensor]], batch: int, dtype: torch.dtype) -> None:
    """Write a `.pt` file of native maps for each image."""
    workers = LOADER_WORKERS if rig.device.type == "cuda" and batch > 1 else 0
    loader = DataLoader(Images(rig.records, rig.spec.input_px), batch_size=batch, num_workers=workers)
    with tempfile.TemporaryDirectory(dir=rig.folder) as folder:
        number = 0
        for pixels in loader:
            maps = [feature.to(dtype).cpu() for feature in run(pixels.to(rig.device))]
            for row in range(len(pixels)):
                torch.save([feature[row].clone() for feature in maps], Path(folder) / f"{number}.pt")
                number += 1
