"""The chart of measured gains is made from the table that a study writes."""

import csv
import runpy
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docs" / "draw_gains.py"
HEAD = [
    "student",
    "recipe",
    "teachers",
    "labels",
    "runs",
    "a-set",
    "mean",
    "std",
    "val_dice",
    "gain",
    "gain_low",
    "gain_high",
    "p",
    "masks",
]
ROWS = [
    ["unet", "baseline", "", 0.1, 3, 0.4, 0.4, 0.01, 0.5, "", "", "", "", ""],
    [
        "unet",
        "difom-multiscale",
        "dinov2,dinov2-probe-l{percent}-s{labels_seed}",
        0.1,
        3,
        0.5,
        0.5,
        0.01,
        0.6,
        0.1234,
        0.05,
        0.2,
        0.001,
        "",
    ],
    ["unet", "difom", "", 0.1, 3, 0.3, 0.3, 0.01, 0.5, -0.05, -0.1, 0.01, 0.2, "unknown masks"],
]


def write(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([HEAD, *rows])
    return path


def draw(source: Path, target: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, str(SCRIPT), str(source), str(target)], capture_output=True, text=True)


def test_every_compared_row_is_a_bar_with_its_gain(tmp_path: Path) -> None:
    done = draw(write(tmp_path / "study.csv", ROWS), tmp_path / "gains.svg")
    assert done.returncode == 0, done.stderr
    picture = (tmp_path / "gains.svg").read_text()
    for words in (
        "difom-multiscale",
        "from dinov2 and dinov2-probe",
        "unet, 10 % of the masks, 3 seeds",
        "+12.3",
        "-5.0",
    ):
        assert words in picture, words
    assert "baseline" not in picture


def test_equal_tables_give_equal_pictures(tmp_path: Path) -> None:
    gains = runpy.run_path(str(SCRIPT))
    lines = gains["read_gains"](write(tmp_path / "study.csv", ROWS))
    assert gains["draw"](lines) == gains["draw"](lines)


def test_a_table_without_a_comparison_is_one_line(tmp_path: Path) -> None:
    done = draw(write(tmp_path / "study.csv", ROWS[:1]), tmp_path / "gains.svg")
    assert done.returncode == 1 and "compares nothing" in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "gains.svg").exists()
