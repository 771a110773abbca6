"""`make demo`, made small: it goes from nothing to a table and pictures, and on from where it was stopped."""

import re
from pathlib import Path

import pytest
from PIL import Image

from difom_train.demo import DemoSize, demo

pytestmark = pytest.mark.journey

SMALL = DemoSize(
    teacher_frames=20,
    train_frames=48,
    test_frames=2,
    paint_px=64,
    picture_px=64,
    views=2,
    teacher_width=4,
    teacher_epochs=3,
    student_width=2,
    student_epochs=2,
    labels_frac=0.25,
)


def test_demo_ends_with_a_table_and_pictures_and_a_second_call_keeps_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = demo(tmp_path / "demo", size=SMALL)
    printed = capsys.readouterr().out
    table = (results / "table.txt").read_text()
    assert table.splitlines()[0].split() == ["Dice", "at", "0.5", "teacher", "baseline", "distilled"]
    assert [line.split()[0] for line in table.splitlines()[1:]][-1] == "mean" and len(table.splitlines()) == 7
    assert table.strip() in printed and "difom-cache extract --teacher dinov2:small" in printed
    for name, columns in (("predictions.png", 5), ("cache.png", 2)):
        with Image.open(results / name) as picture:
            assert picture.width > columns * 100
    page = (results / "index.html").read_text()
    assert "features and masks" in page and "20\nmasks that the students have not" in page and "taught by masks" in page
    assert printed.rstrip().endswith(f"open {results}/index.html") and "painted" in page and "report.html" in page
    assert all((results / name).is_file() for name in re.findall(r'(?:src|href)="([^"]+)"', page))
    weights = (tmp_path / "demo/runs/distilled/student.safetensors").read_bytes()
    assert (demo(tmp_path / "demo", size=SMALL) / "table.txt").read_text() == table
    assert (tmp_path / "demo/runs/distilled/student.safetensors").read_bytes() == weights
