"""Pictures a second from JPEG files to stored bytes, three ways, and what the device could do at most.

`notebook`: the library's network in float32, one picture after the other, a `.pt` file each, as published.
`library`: the same network at its best plain use: batches, its own fused attention, bfloat16 on CUDA, float16 files.
`difom`: `extract`, into a cache, with each backend and precision that is asked for.

All read the same files, one view a picture, and write to the same disk. Runs alternate; medians are reported. What is done once
before the first picture, such as loading or compiling a network, is not counted in any way. One way's network is held at a time,
and built anew for each of its runs, so that the largest teachers fit and a way's peak memory is its own.
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import cosine_similarity
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from difom_cache.base.errors import DataError
from difom_cache.base.hardware import name_device, resolve_device
from difom_cache.base.heap import return_freed_memory
from difom_cache.base.options import read_call
from difom_cache.base.progress import track
from difom_cache.benchmarks.library_teachers import build_plain
from difom_cache.commands import BenchConfig
from difom_cache.data.manifest import load_records, write_manifest
from difom_cache.data.record import Record
from difom_cache.extraction.options import ExtractConfig
from difom_cache.extraction.prepare import probe_batch
from difom_cache.extraction.run import request_teachers, run_extraction
from difom_cache.extraction.teachers import choose_backend, load_teacher, own_teachers, usual_backend
from difom_cache.keywords import BenchKeywords
from difom_cache.teachers.base import Precision, Teacher, TeacherRequest, TeacherSpec, parse_teacher
from difom_cache.teachers.catalogue import OWN_WEIGHTS, build_teacher
from difom_cache.teachers.preprocess import normalise

WAYS = ("notebook", "library", "difom")
MATMUL_SIDE = {"cpu": 2048, "cuda": 8192}
MATMUL_RUNS = 10
LOADER_WORKERS = 8  # of the library's way on CUDA; on the CPU they would only take cores from the network
_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Rig:
    """What every way of one benchmark shares.

    Attributes:
        teacher: `NAME[:VARIANT][@PX]`.
        weights: "hub", "random" or a path.
        records: the pictures.
        all_records: how many `records` were taken from.
        device: where the network runs.
        batch: of the library's way and ours.
        compile: ours runs through torch.compile.
        folder: for everything that is written.
        spec: of our teacher; its precision is the library's way's too.
    """

    teacher: str
    weights: str
    records: tuple[Record, ...]
    all_records: int
    device: torch.device
    batch: int
    compile: bool
    folder: Path
    spec: TeacherSpec


@dataclass(frozen=True)
class Way:
    """One way to do the work, its network on the device.

    Attributes:
        whole: does all pictures, from files to stored bytes, and returns the seconds that they took.
        network: takes a batch (B, 3, S, S) of pixels in [0, 1].
        batch: B.
        features: of such a batch, by native tap name; None where they are not compared.
    """

    whole: Callable[[], float]
    network: Callable[[Tensor], object]
    batch: int
    features: Callable[[Tensor], Mapping[str, Tensor]] | None = None


def bench_teacher(
    teacher: str | BenchConfig,
    *,
    compile: bool = False,
    scratch: str | Path | None = None,
    **options: Unpack[BenchKeywords],
) -> dict[str, Any]:
    """Return pictures a second of each way, from JPEG to stored bytes and of the network alone, ready for JSON.

    Args:
        teacher: `NAME[:VARIANT][@PX]`, or the config of the call.
        compile: run our teacher through torch.compile.
        scratch: folder for what is written; None for the system's.
        **options: listed in `BenchKeywords`.

    Raises:
        DifomError: whatever the user can mend, in one line.
    """
    config = read_call(BenchConfig, options, teacher=teacher)
    teacher, chosen = config.teacher, str(resolve_device(config.device))
    weights = config.weights or ("hub" if parse_teacher(teacher).name in OWN_WEIGHTS else "random")
    records, count = choose_pictures(config.data, config.views)
    first = config.precision[0] if config.precision else None
    ours = build_teacher(teacher, weights=weights, device=chosen, precision=first, compile=compile)
    with tempfile.TemporaryDirectory(prefix="difom-bench-", dir=scratch) as folder:
        batch = min(config.views, config.batch_size or probe_batch(ours, chosen))
        rig = Rig(teacher, weights, records, count, torch.device(chosen), batch, compile, Path(folder), ours.spec)
        write_manifest(records, rig.folder / "pictures.csv")
        facts = _describe(rig) | _count(rig, ours)
        del ours
        return facts | {"ways": _alternate(list_ways(rig, config), rig, config)}


def choose_pictures(data: Path, count: int) -> tuple[tuple[Record, ...], int]:
    """Return `count` records of `data`, whatever their split, as training records; and how many there are.

    Raises:
        DataError: there are fewer.
    """
    records = load_records(data, unlabelled=True)
    if len(records) < count:
        raise DataError(f"{data}: expected at least {count} pictures, found {len(records)}; ask for fewer with --views")
    return tuple(replace(record, split="train") for record in records[:count]), len(records)


def list_ways(rig: Rig, config: BenchConfig) -> dict[str, Callable[[], Way]]:
    """Return what builds each way that was asked for, by name.

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
        kinds = list(product(config.backend or (usual_backend(),), config.precision or (rig.spec.precision,)))
        for backend, precision in kinds:
            name = "difom" if len(kinds) == 1 else f"difom {backend} {precision}"
            ways[name] = partial(_open_ours, rig, _configure_ours(rig, backend, precision))
    return ways


def _configure_ours(rig: Rig, backend: str, precision: Precision) -> ExtractConfig:
    """Return the pass over the pictures of one backend and precision; "auto" becomes the backend that it takes."""
    options = {
        "teacher": rig.teacher,
        "data": rig.folder / "pictures.csv",
        "weights": rig.weights,
        "views": 1,
        "split": "train",
        "unlabelled": True,
        "pictures": False,
        "device": str(rig.device),
        "precision": precision,
        "backend": backend,
        "batch_size": rig.batch,
        "compile": rig.compile,
    }
    config = read_call(ExtractConfig, options)
    with own_teachers():
        chosen = choose_backend(_request(rig, config), None, rig.batch)
    return config.model_copy(update={"backend": chosen.backend})


def _open_ours(rig: Rig, config: ExtractConfig) -> Way:
    """Return ours; its teacher is the one that the pass over all pictures finds held."""
    features = load_teacher(_request(rig, config)).features
    return Way(partial(_extract, rig, config), features, rig.batch, features)


def _request(rig: Rig, config: ExtractConfig) -> TeacherRequest:
    (request,) = request_teachers(config, str(rig.device))
    return request


def _compare_features(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> float:
    """Return the least over maps of the mean over cells of the cosine of features, each about its picture's mean."""
    about = [(x - x.mean((2, 3), keepdim=True) for x in (found[name], expected[name])) for name in expected]
    return min(float(cosine_similarity(ours, theirs, dim=1).mean()) for ours, theirs in about)


def _open_plain(rig: Rig, dtype: torch.dtype, batch: int) -> Way:
    network, forward = build_plain(rig.teacher, rig.weights)
    network = network.eval().requires_grad_(False).to(rig.device, dtype)

    def run(pixels: Tensor) -> list[Tensor]:
        return forward(network, normalise(pixels, rig.spec.mean, rig.spec.std).to(dtype))

    store = partial(_store_plainly, rig, run, batch, torch.float32 if batch == 1 else torch.float16)
    return Way(partial(_seconds, store, rig.device), run, batch)


class Pictures(Dataset[Tensor]):
    """Pictures as a user of the library reads them: float32 (3, S, S) in [0, 1]."""

    def __init__(self, records: Sequence[Record], input_px: int) -> None:
        self.records = records
        self.input_px = input_px

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.records[index].image) as picture:
            side = (self.input_px, self.input_px)
            pixels = np.array(picture.convert("RGB").resize(side, Image.Resampling.BILINEAR))
        return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255  # (S, S, 3) -> (3, S, S)


def _store_plainly(rig: Rig, run: Callable[[Tensor], list[Tensor]], batch: int, dtype: torch.dtype) -> None:
    """Write a `.pt` file of native maps for each picture."""
    workers = LOADER_WORKERS if rig.device.type == "cuda" and batch > 1 else 0
    loader = DataLoader(Pictures(rig.records, rig.spec.input_px), batch_size=batch, num_workers=workers)
    with tempfile.TemporaryDirectory(dir=rig.folder) as folder, torch.no_grad():
        number = 0
        for pixels in loader:
            maps = [feature.to(dtype).cpu() for feature in run(pixels.to(rig.device))]
            for row in range(len(pixels)):
                torch.save([feature[row].clone() for feature in maps], Path(folder) / f"{number}.pt")
                number += 1


def _extract(rig: Rig, config: ExtractConfig) -> float:
    with tempfile.TemporaryDirectory(dir=rig.folder) as folder:
        report = run_extraction(config.model_copy(update={"cache": Path(folder) / "feats"}), quiet=True)
    return sum(report.wall_s.values())


def _alternate(ways: dict[str, Callable[[], Way]], rig: Rig, config: BenchConfig) -> dict[str, dict[str, Any]]:
    """Return medians of rounds, every round running all ways; a first round warms up, compares, and shows the peak."""
    lines: dict[str, dict[str, Any]] = {name: {"whole_s": [], "network_s": []} for name in ways}
    compared = _plain_features(rig) if "difom" in config.ways else None
    for name, build in ways.items():
        _reset_peak(rig.device)
        with own_teachers():
            way = build()
            way.whole()
            lines[name] |= {"peak_bytes": _read_peak(rig.device)}
            if compared and way.features:
                pixels, expected = compared
                lines[name] |= {"cosine": _compare_features(way.features(pixels), expected)}
            del way
    for _ in track(range(config.repeats), f"bench {rig.teacher}", "round"):
        for name, build in ways.items():
            with own_teachers():
                way = build()
                _run_network(way, rig)
                lines[name]["whole_s"].append(way.whole())
                lines[name]["network_s"].append(_seconds(partial(_run_network, way, rig), rig.device))
                del way
    for line in lines.values():
        line["images_per_s"] = len(rig.records) / statistics.median(line["whole_s"])
        line["network_images_per_s"] = len(rig.records) / statistics.median(line["network_s"])
    return lines


def _plain_features(rig: Rig) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return a batch of pictures, and what the network makes of it in PyTorch and float32."""
    plain = build_teacher(rig.teacher, weights=rig.weights, device=str(rig.device), precision="float32")
    pictures = Pictures(rig.records[: rig.batch], rig.spec.input_px)
    pixels = torch.stack([pictures[number] for number in range(rig.batch)]).to(rig.device)
    return pixels, plain.features(pixels)


def _run_network(way: Way, rig: Rig) -> None:
    side = rig.spec.input_px
    pixels = torch.rand((way.batch, 3, side, side), generator=torch.Generator().manual_seed(0)).to(rig.device)
    with torch.no_grad():
        done = 0
        while done < len(rig.records):
            way.network(pixels[: len(rig.records) - done])
            done += way.batch


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _wait(device)
    started_s = time.perf_counter()
    run()
    _wait(device)
    return time.perf_counter() - started_s


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif _STATUS.exists():
        return_freed_memory()
        Path("/proc/self/clear_refs").write_text("5")  # sets VmHWM to what is held now


def _read_peak(device: torch.device) -> int | None:
    """Return the most memory held since `_reset_peak`: of the device on CUDA, of the process on Linux, else None."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if not _STATUS.exists():
        return None
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _count(rig: Rig, ours: Teacher) -> dict[str, Any]:
    """Return the operations of one picture, and how many the device does at most in this precision."""
    side = rig.spec.input_px
    counter = FlopCounterMode(display=False)
    with counter, sdpa_kernel(SDPBackend.MATH):  # fused kernels would hide their products from the counter
        ours.features(torch.zeros((1, 3, side, side), device=rig.device))
    return {
        "flops_per_image": counter.get_total_flops(),
        "matmul_flops_per_s": measure_matmul(rig.device, rig.spec.precision),
    }


def measure_matmul(device: torch.device, precision: Precision) -> float:
    """Return the operations a second of the best of some large matrix products."""
    side = MATMUL_SIDE[device.type]
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.ones((side, side), device=device, dtype=dtype) for _ in range(2))
    product = partial(torch.mm, left, right, out=torch.empty_like(left))
    return 2 * side**3 / min(_seconds(product, device) for _ in range(MATMUL_RUNS))


def _describe(rig: Rig) -> dict[str, Any]:
    return {
        "teacher": f"{rig.spec.name}:{rig.spec.variant}@{rig.spec.input_px}",
        "device": name_device(rig.device),
        "threads": torch.get_num_threads(),
        "precision": rig.spec.precision,
        "batch": rig.batch,
        "views": len(rig.records),
        "pictures": rig.all_records,
        "torch": torch.__version__,
    }


def format_bench(result: dict[str, Any]) -> str:
    """Return what `bench_teacher` gave as a table and a sentence on the share of the device's ceiling."""
    lines = [
        f"{result['teacher']} on {result['device']}, {result['threads']} threads, {result['precision']}, "
        f"batch {result['batch']}, {result['views']} pictures",
        f"{'way':<24}{'JPEG to bytes':>16}{'all ' + str(result['pictures']):>12}{'network alone':>16}{'cosine':>10}"
        f"{'peak memory':>14}",
    ]
    for name, way in result["ways"].items():
        peak = f"{way['peak_bytes'] / 2**30:.2f} GiB" if way["peak_bytes"] else "-"
        whole = f"{way['images_per_s']:.2f} i/s"
        hours = f"{result['pictures'] / way['images_per_s'] / 3600:.2f} h"
        alone = f"{way['network_images_per_s']:.2f} i/s"
        cosine = f"{way['cosine']:.6f}" if "cosine" in way else "-"
        lines.append(f"{name:<24}{whole:>16}{hours:>12}{alone:>16}{cosine:>10}{peak:>14}")
    ceiling, flops = result["matmul_flops_per_s"], result["flops_per_image"]
    lines.append(f"{flops / 1e9:.1f} GFLOP a picture; matrix products reach {ceiling / 1e12:.2f} TFLOP/s here")
    ours = result["ways"].get("difom")
    if ours:
        share = flops * ours["network_images_per_s"] / ceiling
        whole_share = ours["images_per_s"] / ours["network_images_per_s"]
        lines.append(
            f"ours: {share:.0%} of that in the network, {whole_share:.0%} of the network's speed from JPEG to bytes"
        )
    return "\n".join(lines)
