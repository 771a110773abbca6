"""Everything once, on painted pictures: a teacher is trained, its features cached, two students trained and compared.

No picture of a patient and no download is needed. The wide network stands in for a foundation model: what matters is that
it saw every mask while the two narrow students see a tenth of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from difom_cache import (
    Record,
    draft_of,
    extract,
    format_table,
    load_records,
    paint_sample,
    read_image,
    read_mask,
    show,
    write_atomic,
)
from difom_train.evaluation.evaluate import Evaluation, evaluate
from difom_train.evaluation.files import mask_path
from difom_train.training.run import train

TABLE_METRIC = "fixed/dice"
LR = "optimizer.lr=2e-3"  # small networks and few steps
TILE_PX, CAPTION_PX, GAP_PX = 144, 18, 4
AGREE, MISSED, FALSE_ALARM = (60, 200, 90), (240, 190, 40), (220, 60, 60)
NEXT_STEP = (
    "With foundation weights and your own pictures, type instead:\n"
    "  difom-cache extract --teacher sam --teacher dinov2 --data ./data --cache ./feats && "
    "difom-train --student pranet --cache ./feats"
)


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does. The default takes minutes on two cores; tests do less."""

    train_frames: int = 160
    test_frames: int = 12
    picture_px: int = 96
    views: int = 4
    teacher_width: int = 12
    teacher_epochs: int = 10
    student_width: int = 6
    student_epochs: int = 16
    labels_frac: float = 0.1


def demo(out: str | Path = "demo", *, size: DemoSize | None = None) -> Path:
    """Fill `out` with a sample data set, a cache, three runs, a table and pictures; go on where an earlier call stopped.

    Args:
        out: a folder of the demo's own.
        size: how much to do.

    Returns:
        The folder of the table and the pictures.
    """
    out, size = Path(out), size or DemoSize()
    sample, cache, results = out / "sample", out / "feats", out / "results"
    print("1/5 painting a sample data set", flush=True)
    paint_once(sample, size)
    print("\n2/5 training a wide U-Net++ on every mask, for the part of teacher", flush=True)
    fill_cache(cache, sample, size, teacher=())  # the views alone: there is no teacher yet
    common: dict[str, Any] = {
        "input_size": size.picture_px,
        "batch_size": 8,
        "changes": (LR,),
        "resume": True,
        "device": "cpu",
    }
    [teacher] = train(
        "unet++",
        cache=cache,
        recipe="baseline",
        out=out / "runs/teacher",
        width=size.teacher_width,
        epochs=size.teacher_epochs,
        **common,
    )
    print("\n3/5 caching the teacher's features of every view", flush=True)
    fill_cache(cache, sample, size, teacher=(f"student:{teacher}",))
    print(f"\n4/5 training a narrow U-Net twice from this cache, with {size.labels_frac:.0%} of the masks", flush=True)
    common |= {"width": size.student_width, "epochs": size.student_epochs, "labels": size.labels_frac}
    [baseline] = train("unet", cache=cache, recipe="baseline", out=out / "runs/baseline", **common)
    [distilled] = train("unet", cache=cache, recipe="difom-multiscale", out=out / "runs/distilled", **common)
    print("\n5/5 scoring all three on five painted test sets", flush=True)
    scored = {run.name: evaluate(run, sample / "TestDataset", workers=0) for run in (teacher, baseline, distilled)}
    table = render_table(scored)
    write_atomic(results / "table.txt", f"{table}\n".encode())
    draw_results(results, cache, scored, load_records(sample / "TestDataset"))
    print(f"\n{table}\n\npictures: {results}; curves: {out}/runs/*/curves.png\n\n{NEXT_STEP}")
    return results


def paint_once(sample: Path, size: DemoSize) -> None:
    """Make `sample` hold the painted benchmark; one that is there is kept, one that was cut off is painted anew."""
    if sample.exists():
        return
    unfinished = sample.with_name("sample.unfinished")
    for path in sorted(unfinished.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    paint_sample(unfinished, train=size.train_frames, test=size.test_frames)
    unfinished.rename(sample)


def fill_cache(cache: Path, sample: Path, size: DemoSize, *, teacher: Sequence[str]) -> None:
    """Make `cache` hold the views of the training frames, and the teacher's features of each."""
    extract(
        teacher=teacher,
        data=sample,
        cache=cache,
        views=size.views,
        input_size=size.picture_px,
        epochs=size.student_epochs,
        device="cpu",
    )


def render_table(scored: Mapping[str, Evaluation]) -> str:
    """Return Dice at 0.5 of each network on each test set, and the mean of the sets."""
    means = {name: each.means() for name, each in scored.items()}
    sets = list(next(iter(means.values())))
    rows = [["Dice at 0.5", *means]]
    rows += [[each, *(f"{of[each][TABLE_METRIC]:.3f}" for of in means.values())] for each in sets]
    return format_table(rows)


def draw_results(results: Path, cache: Path, scored: Mapping[str, Evaluation], records: Sequence[Record]) -> None:
    """Write what the cache holds of one record, and each network's mask of one frame of each test set, as PNGs."""
    show(cache, view=1, out=results / "cache.png")
    labels = ["picture", "ground truth", *scored]
    chosen = {record.dataset: record for record in reversed(records) if read_mask(record.mask or record.image).any()}
    rows = [draw_row(chosen[dataset], scored) for dataset in sorted(chosen)]
    sheet = Image.new("RGB", (rows[0].width, CAPTION_PX + sum(row.height for row in rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, label in enumerate(labels):
        draw.text((column * (TILE_PX + GAP_PX), 2), label, fill="black", font=font)
    for number, row in enumerate(rows):
        sheet.paste(row, (0, CAPTION_PX + number * row.height))
    with draft_of(results / "predictions.png") as path:
        sheet.save(path)


def draw_row(record: Record, scored: Mapping[str, Evaluation]) -> Image.Image:
    """Return one frame: the picture, its ground truth, and how each network's mask agrees with it."""
    picture, truth = read_image(record.image), read_mask(record.mask or record.image)
    tiles = [picture, paint_agreement(picture, truth, truth)]
    for each in scored.values():
        mask = read_mask(mask_path(each.folder, record.dataset, record.id))
        tiles.append(paint_agreement(picture, truth, mask))
    row = Image.new("RGB", (len(tiles) * (TILE_PX + GAP_PX), TILE_PX + CAPTION_PX + GAP_PX), "white")
    for column, tile in enumerate(tiles):
        row.paste(Image.fromarray(tile).resize((TILE_PX, TILE_PX)), (column * (TILE_PX + GAP_PX), 0))
    ImageDraw.Draw(row).text((0, TILE_PX), record.id, fill="black", font=ImageFont.load_default(11))
    return row


def paint_agreement(picture: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture, (H, W, 3), with hits green, misses yellow and false alarms red."""
    painted = picture * 0.55
    for where, colour in ((truth & mask, AGREE), (truth & ~mask & 1, MISSED), (mask & ~truth & 1, FALSE_ALARM)):
        painted[where == 1] += 0.45 * np.array(colour)
    return painted.astype(np.uint8)
