"""Several networks are scored on the same test sets, one after the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from difom_cache import DataSource, say
from difom_cache.errors import SettingsError
from difom_train.evaluation.evaluate import Evaluation, evaluate
from difom_train.evaluation.files import file_name
from difom_train.inference.segmenter import TEACHER_PREFIX
from difom_train.students.outside import StudentSources
from difom_train.training.run_folder import describe_unfinished


@dataclass(frozen=True)
class Evaluations:
    """The scores of some networks, in the order in which they were named."""

    each: tuple[Evaluation, ...]

    def render(self) -> str:
        """Return the tables of all."""
        return "\n\n".join(one.render() for one in self.each)

    def as_json(self) -> Any:
        """Return the same for a program: of one network its scores, of several a list of them."""
        return self.each[0].as_json() if len(self.each) == 1 else [one.as_json() for one in self.each]


def evaluate_runs(
    runs: Sequence[Path | str],
    data: Path | str | None = None,
    *,
    images: Path | str | None = None,
    masks: Path | str | None = None,
    group_by: str | None = None,
    limit: int | None = None,
    device: str = "auto",
    workers: int | None = None,
    batch_size: int | None = None,
    out: Path | str | None = None,
    maps: Path | str | None = None,
    map_bits: Literal[8, 16] = 8,
    student: StudentSources = (),
) -> Evaluations:
    """Score each of some networks as `evaluate` does; a run that is not finished is scored, and said to be none.

    Args:
        runs: run folders, "teacher:SPEC", or folders of saved maps.
        data: a manifest, a folder in a known layout, or a COCO file; or None, with `images` and `masks` in its place.
        images, masks: a folder of pictures, and of their masks (or their COCO file).
        group_by: a regular expression on file names, or FILE.csv:COLUMN; frames of one group are drawn together by `compare`.
        limit, device, workers, batch_size, map_bits: as of `evaluate`.
        out: where the files go; of several networks, each to a folder of its name in it. None means RUN/eval.
        maps: where maps go; of several networks, a folder each.
        student: for runs of your own students (see `load_student`).

    Raises:
        SettingsError: two networks would write to one folder.
        DifomError: what `evaluate` raises.
    """
    source = DataSource(
        None if data is None else Path(data),
        None if images is None else Path(images),
        None if masks is None else Path(masks),
        group_by=group_by,
    )
    names = [name_of(run) for run in runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and (out is not None or maps is not None):
        raise SettingsError(f"two runs are called {', '.join(twice)} and would share a folder of --out or --maps")
    places = [(_below(out, name, len(names)), _below(maps, name, len(names))) for name in names]
    for run in runs:
        if line := _describe_unfinished(run):
            say(f"NOTE: {line}")
    return Evaluations(
        tuple(
            evaluate(
                run,
                source,
                limit=limit,
                device=device,
                workers=workers,
                batch_size=batch_size,
                out=own_out,
                maps=own_maps,
                map_bits=map_bits,
                student=student,
            )
            for run, (own_out, own_maps) in zip(runs, places, strict=True)
        )
    )


def name_of(run: Path | str) -> str:
    """Return what a network is called as a folder."""
    text = str(run)
    return file_name(text) if text.startswith(TEACHER_PREFIX) else Path(run).resolve().name


def _below(folder: Path | str | None, name: str, count: int) -> Path | str | None:
    return folder if folder is None or count == 1 else Path(folder) / name


def _describe_unfinished(run: Path | str) -> str:
    return "" if str(run).startswith(TEACHER_PREFIX) else describe_unfinished(Path(run))
