"""The top of stage two: a config goes in, run folders come out."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import torch

from difom_cache import Cache, open_cache
from difom_cache.base.errors import CacheFormatError, DifomError, RunError, SettingsError
from difom_cache.base.hardware import explain_memory, resolve_device
from difom_cache.base.progress import explain_wait, say
from difom_cache.base.text import Shown
from difom_train.config import (
    SETTINGS_FILE,
    DistillConfig,
    Phase,
    TrainConfig,
    TrainOptions,
    compose,
    compose_keywords,
    name_folder,
)
from difom_train.data.caches import JointCache
from difom_train.students.base import Student, count_parameters
from difom_train.students.saved import load_student
from difom_train.students.seen_masks import write_run_masks
from difom_train.training.build import build_learner, build_own_student, choose_rows, describe_run, open_feed
from difom_train.training.checkpoint import CHECKPOINT, Progress, read_checkpoint
from difom_train.training.masks import describe_masks, lacks_masks, learns_masks
from difom_train.training.probe import PROBE_FOLDER, needs_probe, open_probed
from difom_train.training.processes import Processes, open_processes
from difom_train.training.run_folder import (
    cut_log,
    open_folder,
    read_log,
    read_run,
    refuse_differences,
    sum_cpu_s,
    write_run,
)
from difom_train.training.train_log import describe_end, describe_start
from difom_train.training.trainer import Trainer

if TYPE_CHECKING:
    from difom_train.keywords import TrainKeywords

CALIBRATION_PICTURES = 256
FIRST_ROUND_FOLDER = "first"
_SAME_ON_RESUME = ("joined_by", "manifest_digests", "cache_digests", "pictures_per_step", "steps_per_epoch")


class Runs(Shown, list[Path]):
    """The run folders of a call, and how each run went."""

    progress: dict[Path, Progress]

    def _line(self) -> str:
        return ", ".join(map(str, self))

    def _table(self) -> list[list[object]]:
        rows: list[list[object]] = [["run", "epochs", "kept epoch", "validation Dice"]]
        for folder, went in self.progress.items():
            dice = f"{went.best_dice:.3f}" if went.best_dice >= 0 else "-"
            rows.append([folder, went.epochs_done, went.best_epoch + 1, dice])
        return rows


def train(config: TrainConfig | str | Student | None = None, /, **options: "Unpack[TrainKeywords]") -> list[Path]:
    """Train a student from a cache; return the run folder of each seed.

    `train("unet", cache="./feats", recipe="difom", epochs=30)` is short for `train(compose_keywords(...))`: the keywords are
    those of the command, as the signature lists them; what is left out is as the recipe says.

    Args:
        config: of the run, the student's name, or a student, such as `wrap_student` makes of any module; each run trains a
            copy of it.
        options: keywords, with a student's name or without one.

    Raises:
        DifomError: something that you can fix; its message is one line that says how.
    """
    if isinstance(config, TrainConfig):
        if options:
            raise SettingsError(f"give a config or keywords, not both: {', '.join(options)}")
        composed = compose(config) if isinstance(config, TrainOptions) else config
    else:
        composed = compose_keywords(**options | _name_student(config))
    out = composed.run.out or name_folder(composed, composed.distill.kind)
    seeds = composed.run.seeds or (composed.seed,)
    folders = {Path(f"{out}-seed{seed}") if len(seeds) > 1 else out: seed for seed in seeds}
    runs, student = Runs(folders), config if isinstance(config, Student) else None
    runs.progress = {
        folder: train_run(composed.model_copy(update={"seed": seed}), folder, student)
        for folder, seed in folders.items()
    }
    return runs


def _name_student(student: str | Student | None) -> "TrainKeywords":
    """Return the keywords that say what is trained."""
    if student is None:
        return {}
    if isinstance(student, str):
        return {"student": student}
    settings = student.settings
    return {"student": settings.name, "width": settings.width or 0, "deep_supervision": settings.deep_supervision}


def train_run(config: TrainConfig, folder: Path, student: Student | None = None) -> Progress:
    """Train one student into `folder`, a copy of the one that was handed in where there is one; return how it went."""
    device = resolve_device(config.machine.device)
    with explain_wait(f"opening {', '.join(map(str, config.run.cache))}"):
        caches = [_open(path, config, folder) for path in config.run.cache]
    processes = open_processes(device, config.machine.precision)
    with processes.explain_lost():
        return _train_run(config, folder, student, caches, processes)


def _train_run(
    config: TrainConfig, folder: Path, student: Student | None, caches: list[Cache], processes: Processes
) -> Progress:
    known, begun = (folder / SETTINGS_FILE).is_file(), config.run.resume and (folder / CHECKPOINT).is_file()
    first = _train_first_round(config, folder, student, caches, processes, begun=begun)
    if (folder / PROBE_FOLDER).exists() if begun else needs_probe(config, caches):
        if not begun:  # weights out of reach are told before heads are fitted for minutes
            build_own_student(config, pretrained=True, student=student)
        _open_folder_once(config, processes, folder)
        caches = [open_probed(config, caches[0], folder, processes, going_on=begun)]
    cache = JointCache(caches)
    with explain_wait("building the student and the targets of its teachers"):
        learner = build_learner(config, cache, pretrained=not begun, student=student)
    taps = learner.distiller.taps
    selection = choose_rows(config, cache, taps)
    going_on = _open_folder_once(config, processes, folder)
    if known and first is None and config.run.resume and not going_on and processes.is_main:
        say(f"{folder} holds no checkpoint to resume from: the run starts over")
    data = config.data
    with explain_memory(
        f"It is too small for batches of {data.batch_size} at {data.input_px} px; try --batch-size "
        f"{max(1, data.batch_size // 2)} --accumulate {data.accumulate * 2}, or --stage disk"
    ):
        with explain_wait("reading the cache into memory (--stage disk begins at once)"):
            feed = open_feed(config, cache, processes, selection, taps)
        trainer = Trainer(config, processes, learner, feed, folder, first)
        facts = describe_run(config, processes, learner, feed)
        _start(trainer, facts, going_on=going_on)
        before = trainer.progress.epochs_done
        progress = trainer.fit()
    _close(trainer, facts, before)
    return progress


def _train_first_round(
    config: TrainConfig,
    folder: Path,
    student: Student | None,
    caches: list[Cache],
    processes: Processes,
    *,
    begun: bool,
) -> Student | None:
    """Return the frozen student whose masks teach this run's, None where none is asked for.

    Until the second round has a checkpoint, the first one is trained or resumed, and refused if it has other settings or data.
    """
    if config.distill.rounds == 1 or not (config.distils and learns_masks(config.distill)):
        return None
    if not lacks_masks(JointCache(caches), config.data, seed=config.seed):
        return None
    home = folder / FIRST_ROUND_FOLDER
    if not begun:
        _open_folder_once(config, processes, folder)
        if processes.is_main:
            say(f"round 1 of 2: the student alone, into {home}")
        _train_run(compose_first_round(config, folder), home, student, caches, processes)
        if processes.is_main:
            say(f"round 2 of 2: its masks teach beside the teachers', into {folder}")
    first = load_student(home, str(processes.device), student=student).eval().requires_grad_(False)
    return first.to(memory_format=torch.channels_last) if config.machine.channels_last else first  # type: ignore[call-overload]


def compose_first_round(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return the settings of the first round of a run in `folder`: the student alone."""
    run = config.run.model_copy(update={"out": folder / FIRST_ROUND_FOLDER, "resume": True})
    return config.model_copy(update={"run": run, "distill": DistillConfig(), "phases": (Phase(),)})


def _open(path: Path, config: TrainConfig, folder: Path) -> Cache:
    """Return a cache of the run; a run that is gone on with says which option is missing where it was moved."""
    try:
        return open_cache(path, access=config.machine.access)
    except CacheFormatError as error:
        if not config.run.resume or path.exists() or not (folder / SETTINGS_FILE).is_file():
            raise
        problem = f"{folder} was trained from {path}, which is not there; say with --cache where it lies now"
        raise RunError(problem) from error


def _open_folder_once(config: TrainConfig, processes: Processes, folder: Path) -> bool:
    """Open the folder on the first process, and tell the others how that went."""
    answer: tuple[bool, str] = (False, "")
    if processes.is_main:
        try:
            answer = (open_folder(folder, config), "")
        except DifomError as error:
            answer = (False, str(error))
    going_on, problem = processes.share(answer)
    if problem:
        raise RunError(problem)
    return going_on


def _start(trainer: Trainer, facts: dict[str, Any], *, going_on: bool) -> None:
    """Restore or calibrate; say what is going to happen."""
    folder, distiller = trainer.folder, trainer.distiller
    if going_on:
        refuse_differences(read_run(folder), facts, _SAME_ON_RESUME, folder)
        # The best so far: a run that cannot give it is not gone on with as if all were well.
        load_student(folder, student=trainer.student)
        trainer.progress, states = read_checkpoint(folder)
        try:
            trainer.load_state_dict(states)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
            raise RunError(
                f"{folder / CHECKPOINT} is damaged ({error}); remove the folder and start the run anew"
            ) from error
    elif distiller.needs_calibration:
        with torch.no_grad(), explain_wait(f"calibrating the teachers' masks on {CALIBRATION_PICTURES} pictures"):
            batches = trainer.feed.calibration_batches(distiller.taps, CALIBRATION_PICTURES)
            distiller.calibrate(batch.tensors for batch in batches)
    if trainer.processes.is_main:
        cut_log(folder, trainer.progress.epochs_done)
        write_run(folder, facts)
        write_run_masks(
            folder, describe_masks(trainer.config, trainer.feed.cache, trainer.feed.selection, distiller)[1]
        )
        trainer.log.say(*describe_start(folder, trainer.config, facts, trainer.progress, trainer.feed))


def _close(trainer: Trainer, facts: dict[str, Any], before: int) -> None:
    """Write down how the run ended, and say it; `before` epochs were done when it was started."""
    progress, spent = trainer.progress, read_log(trainer.folder)
    if trainer.first is not None:
        spent = read_log(trainer.folder / FIRST_ROUND_FOLDER) + spent
    alive = not progress.warnings if progress.alive else None
    facts["distillation"] |= {"alive": alive, "warnings": progress.warnings, "last": progress.alive[-1:]}
    facts |= {
        "status": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "epochs_done": progress.epochs_done,
        "best_epoch": progress.best_epoch,
        "best_val_dice": progress.best_dice if progress.best_dice >= 0 else None,
        "parameters": count_parameters(trainer.student),
        "train_cpu_s": sum_cpu_s(spent) if trainer.processes.world == 1 else None,
    }
    if trainer.processes.is_main:
        write_run(trainer.folder, facts)
        trainer.log.say(
            *describe_end(
                trainer.folder,
                trainer.config,
                progress,
                before=before,
                validation_images=facts["rows"]["val_records"],
            )
        )
