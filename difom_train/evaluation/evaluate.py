"""A trained student is scored on test sets, frame by frame, under both protocols."""

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from difom_cache import Record, __version__, read_image
from difom_cache.base.errors import DataError, RunError, SettingsError
from difom_cache.base.hardware import explain_memory
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_folder, check_outputs
from difom_cache.base.progress import explain_wait, track
from difom_cache.base.text import Shown, format_table, name_some
from difom_cache.data import DataSource
from difom_cache.store import format_random_warning
from difom_train.commands import EvaluateConfig
from difom_train.evaluation.files import (
    COLUMNS,
    MAPS_VERSION,
    PROTOCOL_VERSION,
    mask_path,
    read_set,
    read_summary,
    write_set,
    write_summary,
)
from difom_train.evaluation.metrics import PROTOCOLS
from difom_train.evaluation.score_frames import FrameJob, FrameScores, read_map, score_frames
from difom_train.evaluation.summary import (
    METRICS,
    PROTOCOL_TITLES,
    FrameInfo,
    SetScores,
    format_value,
    mean_label,
    mean_of_sets,
)
from difom_train.inference.frames import LeftOut, choose_records, in_batches, show_data
from difom_train.inference.segmenter import (
    Segmenter,
    StudentSegmenter,
    choose_batch,
    find_random_teachers,
    find_seen_masks,
    identify,
    is_named,
    load_segmenter,
    segment,
)
from difom_train.students.base import count_parameters
from difom_train.students.outside import StudentSources
from difom_train.students.seen_masks import Seen
from difom_train.training.masks import UNKNOWN

if TYPE_CHECKING:
    from difom_train.keywords import EvaluateKeywords

MAP_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True, repr=False)
class Evaluation(Shown):
    """The scores of one network, or of one folder of saved maps.

    Attributes:
        name: of the run, teacher or folder.
        folder: where the files lie (RUN/eval).
        sets: test set to its frames' scores.
        random_teachers: whose random weights the network has, or learnt from.
        cpu_s_per_frame: of the network's pass on the CPU, over all threads; None on a GPU, and of saved maps.
        mark: what a reader must know of the masks that the network has learnt from; empty where none of them scores it.
        left_out: frames of the data, or maps, that have no scores, and why.
    """

    name: str
    folder: Path
    sets: dict[str, SetScores]
    random_teachers: tuple[str, ...] = ()
    cpu_s_per_frame: float | None = None
    left_out: tuple[LeftOut, ...] = ()
    mark: str = ""

    def means(self) -> dict[str, dict[str, float]]:
        """Return test set to metric to value; of several sets also their mean, last.

        "fixed/dice" is Dice at threshold 0.5, "pranet/dice" PraNet's mean over 256 thresholds of maps stretched frame by frame.
        """
        means = {name: scores.summarise() for name, scores in self.sets.items()}
        return {**means, mean_label(list(means)): mean_of_sets(means)} if len(means) > 1 else means

    def _line(self) -> str:
        place, values = list(self.means().items())[-1]
        return f"{self.name}: Dice at 0.5 {values['fixed/dice']:.3f} ({place})"

    def _table(self) -> list[list[object]]:
        rows: list[list[object]] = [["test set", "frames", "Dice at 0.5", "mDice as PraNet"]]
        for name, values in self.means().items():
            frames = len(self.sets[name].frames) if name in self.sets else ""
            rows.append([name, frames, *(f"{values[key]:.3f}" for key in ("fixed/dice", "pranet/dice"))])
        return rows

    def render(self) -> str:
        """Return one table a protocol, a line a test set."""
        means = self.means()
        tables = []
        for protocol in PROTOCOLS:
            metrics = [metric for metric in METRICS if metric.protocol == protocol]
            rows = [["test set", "frames", *(metric.label for metric in metrics)]]
            for name, values in means.items():
                frames = str(len(self.sets[name].frames)) if name in self.sets else ""
                rows.append([name, frames, *(format_value(metric, values[metric.name]) for metric in metrics)])
            tables.append(f"{self.name}, {PROTOCOL_TITLES[protocol]}\n{format_table(rows)}")
        warning = [format_random_warning(self.random_teachers)] if self.random_teachers else []
        warning += [f"NOTE: {self.name}: {self.mark}"] if self.mark else []
        cost = [] if self.cpu_s_per_frame is None else [f"network: {self.cpu_s_per_frame:.3g} CPU s a frame"]
        scored = sum(len(scores.frames) for scores in self.sets.values())
        ended = (
            f"{scored} frames scored, {sum(each.frames for each in self.left_out)} left out; per frame: {self.folder}"
        )
        return "\n\n".join([*tables, *warning, *cost, "\n".join([*(each.describe() for each in self.left_out), ended])])

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        frames = {name: len(scores.frames) for name, scores in self.sets.items()}
        return {
            "run": self.name,
            "folder": str(self.folder),
            "frames": frames,
            "scores": self.means(),
            "random_teachers": list(self.random_teachers),
            "cpu_s_per_frame": self.cpu_s_per_frame,
            "left_out": [asdict(each) for each in self.left_out],
            "mark": self.mark,
        }


@explain_memory("Choose a smaller --batch-size, or --device cpu")
def evaluate(
    run: Path | str | EvaluateConfig,
    data: Path | str | DataSource | None = None,
    *,
    reuse: bool = False,
    student: StudentSources = None,
    **options: "Unpack[EvaluateKeywords]",
) -> Evaluation:
    """Score a network on test sets; write every frame's scores and mask, and return the table.

    Args:
        run: a run folder; "teacher:SPEC" for a teacher that gives polyp logits; "probe:CACHE/LABEL" for a probe with
            its teachers; or a folder of saved grey maps,
            `<set>/<stem>.png`, as result archives of published methods come; or the config of the call, of one run.
        data: a manifest, a folder in a known layout, or a COCO file, or what was said of one; or `images`. Its test records are
            scored, or all if it knows no splits; what is left out is named.
        reuse: take the scores that lie there if they are of the same weights, input size, frames and masks.
        student: for a run of your own student: `package.module:Factory`, or the module that was wrapped (see `load_student`).
        **options: as the signature lists them. With `limit`, those frames are scored whose ids hash lowest. A batch is of 1
            picture on the CPU by default, else of 8. `maps` are unstretched: MAPS/<set>/<stem>.png at the frame's own size, which
            `evaluate MAPS` scores as well.

    Raises:
        DataError: nothing to score, or maps that are missing or of another size (all are counted, ten named).
        RunError: the run holds no trained student.
    """
    asked = None if isinstance(data, DataSource) else data
    config = read_call(EvaluateConfig, options, runs=run, data=asked)
    run, maps = config.runs[0], config.maps
    folder = _choose_folder(run, config.out)
    check_out_folder(folder)
    if maps is not None:
        check_out_folder(maps, "--maps")
    source = data if isinstance(data, DataSource) else config.describe_source(config.data)
    records, left_out = choose_records(source, config.limit)
    random_teachers: tuple[str, ...] = ()
    parameters, mark = None, UNKNOWN
    spent_s: list[float] = []
    if _is_folder_of_maps(run):
        identity: dict[str, Any] = {"source": "maps", "maps_version": MAPS_VERSION}
        jobs = _jobs_of_maps(Path(run), records, folder)
        left_out += _find_other_maps(Path(run), folder, records, left_out)
        name = Path(run).resolve().name
    else:
        with explain_wait(f"loading {run}"):
            own = config.student if student is None else student
            segmenter = load_segmenter(run, device=config.device, student=own, frames=show_data(source))
        identity = identify(segmenter, run)
        jobs = _jobs_of(segmenter, records, folder, choose_batch(segmenter, config.batch_size), spent_s)
        name = segmenter.name
        random_teachers = find_random_teachers(segmenter)
        parameters = count_parameters(segmenter.student) if isinstance(segmenter, StudentSegmenter) else None
        mark = mark_scored(find_seen_masks(segmenter, run), records)
        if reuse and maps is None and (kept := find_scores(folder, identity, records)):
            cost = read_summary(folder).get("cpu_s_per_frame")
            return Evaluation(name, folder, kept, random_teachers, cost, tuple(left_out), mark)
    if maps is not None:
        jobs = _with_maps(jobs, maps, records, config.map_bits)
    scored = score_frames(jobs, frames=len(records), workers=config.workers)
    bar = track(scored, f"scoring {name}", "frame", total=len(records))
    sets = _gather(list(bar))
    for scores in sets.values():
        write_set(scores, folder)
    cpu_s = sum(spent_s) / len(records) if spent_s else None
    notes = {
        "name": name,
        "difom": __version__,
        "data": str(source.place),
        "limit": config.limit,
        "random_teachers": random_teachers,
        "cpu_s_per_frame": cpu_s,
        "parameters": parameters,
        "mark": mark,
        "left_out": [asdict(each) for each in left_out],
    }
    write_summary(folder, sets, identity, notes)
    return Evaluation(name, folder, sets, random_teachers, cpu_s, tuple(left_out), mark)


def mark_scored(seen: Seen, records: Sequence[Record]) -> str:
    """Return what a reader of the scores must know of the masks that the network learnt from; "" where none scores it."""
    if seen is None:
        return UNKNOWN
    known = sum(record.mask_sha256 in seen for record in records)
    return f"has learnt from {known} of the {len(records)} masks that score it" if known else ""


def find_scores(folder: Path, identity: Mapping[str, Any], records: Sequence[Record]) -> dict[str, SetScores] | None:
    """Return the scores that lie in `folder` if they are this network's on exactly these frames, else None."""
    if not (folder / "summary.json").is_file():
        return None
    summary = read_summary(folder)
    if summary.get("identity") != dict(identity) or summary.get("protocol_version") != PROTOCOL_VERSION:
        return None
    kept = {}
    for dataset in dict.fromkeys(record.dataset for record in records):
        if dataset not in summary["sets"]:
            return None
        kept[dataset] = read_set(folder, dataset)
        wanted = [(r.id, r.image_sha256, r.mask_sha256) for r in records if r.dataset == dataset]
        if [(f.id, f.image_sha256, f.mask_sha256) for f in kept[dataset].frames] != wanted:
            return None
    return kept


def _jobs_of(
    segmenter: Segmenter, records: Sequence[Record], folder: Path, batch_size: int, spent_s: list[float]
) -> Iterator[FrameJob]:
    """Yield the jobs of a network; on a CPU, what it takes of each batch goes into `spent_s`."""
    for batch in in_batches(records, batch_size):
        pictures = [read_image(record.image, max_pixels=None) for record in batch]
        started_s = time.process_time()
        logits = segment(segmenter, pictures)
        if segmenter.device == "cpu":
            spent_s.append(time.process_time() - started_s)
        for record, each in zip(batch, logits, strict=True):
            yield FrameJob(record, logits=each, mask_path=mask_path(folder, record.dataset, record.id))


def _with_maps(
    jobs: Iterator[FrameJob], maps: Path, records: Sequence[Record], bits: Literal[8, 16]
) -> Iterator[FrameJob]:
    """Return the jobs, each to write its probability below `maps`, once every place is known to be free of inputs."""
    places = {
        record.id: maps / f"{record.dataset}/{record.id.removeprefix(f'{record.dataset}/')}.png" for record in records
    }
    read = [path for record in records for path in (record.image, record.mask) if path is not None]
    check_outputs(maps, list(places.values()), read)
    return (replace(job, prob_path=places[job.record.id], prob_bits=bits) for job in jobs)


def _jobs_of_maps(maps: Path, records: Sequence[Record], folder: Path) -> Iterator[FrameJob]:
    """Return one job a record once every map is known to be there, at its ground truth's size."""
    found = {record.id: _find_map(maps, record) for record in records}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        raise DataError(f"{maps}: no map for {len(missing)} of {len(records)} frames: {name_some(missing)}")
    paths = {name: path for name, path in found.items() if path is not None}
    odd = []
    for record in records:
        height, width = read_map(paths[record.id]).shape
        if (height, width) != (record.height, record.width):
            odd.append(f"{record.id} ({width} x {height}, its mask {record.width} x {record.height})")
    if odd:
        raise DataError(f"{maps}: {len(odd)} maps are not of their mask's size: {name_some(odd)}")
    return (
        FrameJob(record, map_path=paths[record.id], mask_path=mask_path(folder, record.dataset, record.id))
        for record in records
    )


def _find_map(maps: Path, record: Record) -> Path | None:
    stem = record.id.removeprefix(f"{record.dataset}/")
    paths = (maps / record.dataset / f"{stem}{suffix}" for suffix in MAP_SUFFIXES)
    return next((path for path in paths if path.is_file()), None)


def _find_other_maps(maps: Path, folder: Path, records: Sequence[Record], left_out: Sequence[LeftOut]) -> list[LeftOut]:
    """Return what lies in a folder of maps and is a map of no frame, set by set, besides the scores in `folder`."""
    named = {record.id for record in records}
    files = [
        path for path in maps.rglob("*") if path.suffix.lower() in MAP_SUFFIXES and not path.is_relative_to(folder)
    ]
    found = [path.relative_to(maps).with_suffix("") for path in files]
    others = Counter(path.parts[0] for path in found if len(path.parts) > 1 and path.as_posix() not in named)
    for each in left_out:
        others[each.dataset] -= each.frames
    return [LeftOut(name, count, "maps of no frame of the data") for name, count in sorted(others.items()) if count > 0]


def _is_folder_of_maps(run: Path | str) -> bool:
    """Return whether `run` holds sub-folders of pictures and nothing that training writes."""
    if is_named(run):
        return False
    folder = Path(run)
    if not folder.is_dir() or any((folder / name).exists() for name in ("student.json", "settings.toml", "run.json")):
        return False
    return any(path.suffix.lower() in MAP_SUFFIXES for path in folder.glob("*/*"))


def _choose_folder(run: Path | str, out: Path | str | None) -> Path:
    if out is not None:
        return Path(out)
    if is_named(run):
        raise SettingsError(f"{run} has no folder for its scores; name one with --out")
    if not Path(run).is_dir():
        raise RunError(f"{run} is not a folder; pass the folder of a finished run")
    return Path(run) / "eval"


def _gather(scored: Sequence[FrameScores]) -> dict[str, SetScores]:
    """Return the scores by test set, sets in the order in which they came."""
    sets: dict[str, SetScores] = {}
    for dataset in dict.fromkeys(each.record.dataset for each in scored):
        own = [each for each in scored if each.record.dataset == dataset]
        columns = {
            f"{protocol}/{key}": np.array([getattr(getattr(each, protocol), key) for each in own])
            for protocol in PROTOCOLS
            for key in COLUMNS[protocol]
        }
        curves = np.stack([each.pranet.e_curve for each in own]).astype(np.float32)
        sets[dataset] = SetScores(dataset, tuple(_info(each.record) for each in own), columns, curves)
    return sets


def _info(record: Record) -> FrameInfo:
    return FrameInfo(
        id=record.id,
        group=record.group,
        image=str(record.image.resolve()),
        mask=str(record.mask.resolve()) if record.mask else "",
        image_sha256=record.image_sha256,
        mask_sha256=record.mask_sha256,
        width=record.width,
        height=record.height,
    )
