"""Every file of a run folder, damaged in every way we know: the reader says so in one line that names the file, or is right."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from painted_frames import paint_benchmark, save_small_student

from difom_cache.errors import DifomError
from difom_train import compare, curves, evaluate, load_student
from difom_train.config import read_recipe, write_settings
from difom_train.training import append_log, read_run, write_run

EPOCH = {"epoch": 0, "loss": 1.0, "segmentation": 1.0, "val_dice": 0.5}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "null": lambda content: b"null\n",
    "list": lambda content: b"[1, 2]\n",
    "object": lambda content: b"{}\n",
    "noise": lambda content: bytes(range(256)) * 4,
    "cut line": lambda content: content[:-9],
    "a word for a number": lambda content: content.replace(b"1", b"one", 40),
    "no number": lambda content: content.replace(b"0.", b"nan", 400),
    "other keys": lambda content: content.replace(b"e", b"i"),
    "deep": lambda content: b"[" * 100_000,
}


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_benchmark(tmp_path_factory.mktemp("data"), frames=1)


@pytest.fixture(scope="module")
def whole(benchmark: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a run that is trained, evaluated and whole."""
    folder = save_small_student(tmp_path_factory.mktemp("runs") / "whole-seed0")
    write_settings(read_recipe("baseline"), folder / "settings.toml")
    write_run(folder, {"status": "finished"})
    append_log(folder, EPOCH)
    evaluate(folder, benchmark, workers=0)
    return folder


def use(run: Path, other: Path, out: Path) -> None:
    """Read everything that a run folder holds, as commands do."""
    load_student(run)
    read_run(run)
    compare([other, run], out=out / "compared", cost=False, resamples=10, gallery_per_set=1)
    curves([run], out / "curves.png", force=True)


def files_of(run: Path) -> list[str]:
    return sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())


def test_a_whole_run_is_read(whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, tmp_path / "run-seed1")
    use(tmp_path / "run-seed1", whole, tmp_path)


@pytest.mark.parametrize("damage", [*DAMAGES, "folder", "FIFO"])
def test_a_damaged_file_of_a_run_is_named_in_one_line(whole: Path, tmp_path: Path, damage: str) -> None:
    names = [name for name in files_of(whole) if not name.startswith("eval/masks") or name.endswith("Kvasir/1.png")]
    assert {"student.json", "run.json", "log.jsonl", "settings.toml", "eval/summary.json"} <= set(names)
    refused = 0
    for number, name in enumerate(names):
        run = tmp_path / f"run{number}-seed1"
        shutil.copytree(whole, run)
        content = (run / name).read_bytes()
        (run / name).unlink()
        if damage == "folder":
            (run / name).mkdir()
        elif damage == "FIFO":
            os.mkfifo(run / name)
        else:
            (run / name).write_bytes(DAMAGES[damage](content))
        try:
            use(run, whole, tmp_path)
        except DifomError as error:
            refused += 1
            text = str(error)
            assert "\n" not in text and (Path(name).name in text or run.name in text), (name, text)
        shutil.rmtree(run)
    assert refused >= len(names) // 3


def test_a_finished_run_without_its_student_is_no_success(whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    description = json.loads((run / "student.json").read_text())
    for meta in ({}, {"input_px": "32"}, {"input_px": -32}, {"input_px": 1 << 40}, []):
        (run / "student.json").write_text(json.dumps(description | {"meta": meta}))
        with pytest.raises(DifomError, match=r"student\.json"):
            load_student(run)
