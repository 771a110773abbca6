"""Everything once, on painted pictures: a teacher is trained, its features cached, two students trained and compared.

No picture of a patient and no download is needed. The wide network stands in for a foundation model: it was trained on painted
frames of its own, with all their masks, and never sees the frames or masks that the two narrow students learn from.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from difom_cache import Record, extract, load_records, paint_sample, read_image, read_mask, show
from difom_cache.base.atomic import write_atomic
from difom_cache.base.text import format_table
from difom_cache.data import write_picture
from difom_train.evaluation.evaluate import Evaluation, evaluate
from difom_train.evaluation.files import mask_path
from difom_train.reporting.compare import compare
from difom_train.training.curves import curves
from difom_train.training.run import train

TABLE_METRIC = "fixed/dice"
LR = "optimizer.lr=2e-3"  # small networks and few steps
BATCH = 8
TILE_PX, CAPTION_PX, GAP_PX = 160, 20, 4
AGREE, MISSED, FALSE_ALARM = (40, 150, 255), (255, 240, 60), (150, 0, 60)  # told apart by colour-blind readers, too
LEGEND = (("polyp found", AGREE), ("polyp missed", MISSED), ("false alarm", FALSE_ALARM))


@dataclass(frozen=True)
class DemoSize:
    """How much the demo does. The default takes minutes on two cores; tests do less."""

    teacher_frames: int = 480
    train_frames: int = 160
    test_frames: int = 16
    paint_px: int = 128
    picture_px: int = 64
    views: int = 4
    teacher_width: int = 16
    teacher_epochs: int = 32
    student_width: int = 8
    student_epochs: int = 24
    labels_frac: float = 0.1


def demo(out: str | Path = "demo", *, size: DemoSize | None = None) -> Path:
    """Fill `out` with sample pictures, a cache, three runs and a report; go on where an earlier call stopped.

    Args:
        out: a folder of the demo's own.
        size: how much to do.

    Returns:
        The folder of the report, its tables and pictures.
    """
    out, size = Path(out), size or DemoSize()
    elsewhere, sample, cache, report = out / "elsewhere", out / "sample", out / "feats", out / "report"
    common: dict[str, Any] = {
        "input_size": size.picture_px,
        "batch_size": BATCH,
        "changes": (LR,),
        "resume": True,
        "device": "cpu",
    }
    print("1/6 painting frames: easy polyps in five styles of light and camera; no patient is involved", flush=True)
    paint_once(elsewhere, size, train=size.teacher_frames, test=1, seed=1)
    paint_once(sample, size, train=size.train_frames, test=size.test_frames, seed=0)

    print(
        f"\n2/6 training the teacher, a wide U-Net, on {size.teacher_frames} other frames with their masks", flush=True
    )
    views = out / "elsewhere-views"
    fill_cache(views, elsewhere, size, views=2)
    common |= {"width": size.teacher_width, "epochs": size.teacher_epochs}
    [teacher] = train("unet", cache=views, recipe="baseline", out=out / "runs/teacher", **common)

    print(f"\n3/6 caching the teacher's features of {size.views} views of each of the students' frames", flush=True)
    fill_cache(cache, sample, size, views=size.views, teacher=(f"student:{teacher}",))

    print(
        f"\n4/6 training a narrow U-Net twice, {size.labels_frac:.0%} of the masks, equal steps and seed: alone, then taught by "
        f"the teacher's features and masks, which lean on the {size.teacher_frames} masks that the teacher has seen",
        flush=True,
    )
    common |= {"width": size.student_width, "epochs": size.student_epochs, "labels": size.labels_frac}
    [baseline] = train("unet", cache=cache, recipe="baseline", out=out / "runs/baseline", **common)
    [distilled] = train("unet", cache=cache, recipe="difom-multiscale", out=out / "runs/distilled", **common)

    print("\n5/6 scoring all three on five painted test sets, which nothing was trained or chosen on", flush=True)
    scored = {run.name: evaluate(run, sample / "TestDataset", workers=0) for run in (teacher, baseline, distilled)}

    print("\n6/6 writing the report", flush=True)
    runs = (baseline, distilled, teacher)
    compare(runs, out=report, published=False, cost=False, gallery_per_set=6, resamples=2000)
    table = render_table(scored)
    write_atomic(report / "table.txt", f"{table}\n".encode())
    show(cache, view=1, out=report / "cache.png", force=True)
    curves(runs[:2], report / "curves.png", force=True)
    draw_predictions(report / "predictions.png", scored, load_records(sample / "TestDataset"))
    write_page(report / "index.html", table, size)
    print(f"\n{table}\n\n{next_steps(out, size)}\n\nopen {report}/index.html")
    return report


def next_steps(out: Path, size: DemoSize) -> str:
    """Return what to type next: the same with five seeds, and with foundation models and real pictures."""
    return (
        "One seed is an anecdote; the same with five:\n"
        f"  difom-train study --cache {out}/feats --data {out}/sample/TestDataset --out {out}/study --recipes "
        f"baseline,difom-multiscale --labels {size.labels_frac} --seeds 0,1,2,3,4 --width {size.student_width} "
        f"--input-size {size.picture_px} --batch-size {BATCH} --epochs {size.student_epochs} --set {LR}\n"
        "With foundation weights and your own images in ./data:\n"
        "  difom-cache extract --teacher dinov2:small && difom-train train --student pranet --labels 0.1"
    )


def paint_once(folder: Path, size: DemoSize, *, train: int, test: int, seed: int) -> None:
    """Make `folder` hold painted frames; what is there is kept, what was cut off is painted anew."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    for path in sorted(unfinished.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    paint_sample(unfinished, seed=seed, train=train, test=test, side=size.paint_px, easy=True)
    unfinished.rename(folder)


def fill_cache(cache: Path, data: Path, size: DemoSize, *, views: int, teacher: Sequence[str] = ()) -> None:
    """Make `cache` hold the views of the training frames, and the features of each where there is a teacher."""
    extract(
        teacher=teacher,
        data=data,
        cache=cache,
        views=views,
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


def draw_predictions(path: Path, scored: Mapping[str, Evaluation], records: Sequence[Record]) -> None:
    """Write each network's mask of one frame of each test set: the one whose gain is the set's median."""
    chosen = [choose_median(scored, records, dataset) for dataset in sorted(scored["distilled"].sets)]
    rows = [draw_row(record, scored) for record in chosen]
    sheet = Image.new("RGB", (rows[0].width, 2 * CAPTION_PX + sum(row.height for row in rows)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for column, label in enumerate(["image", "ground truth", *scored]):
        draw.text((column * (TILE_PX + GAP_PX), 2), label, fill="black", font=font)
    for number, row in enumerate(rows):
        sheet.paste(row, (0, CAPTION_PX + number * row.height))
    for number, (words, colour) in enumerate(LEGEND):
        left, top = number * (TILE_PX + GAP_PX), sheet.height - CAPTION_PX
        draw.rectangle((left, top + 4, left + 12, top + 16), fill=colour)
        draw.text((left + 18, top + 1), words, fill="black", font=font)
    write_picture(path, sheet)


def choose_median(scored: Mapping[str, Evaluation], records: Sequence[Record], dataset: str) -> Record:
    """Return the frame with a polyp where distilled minus baseline is the median of its set (the lower of two)."""
    before, after = (scored[name].sets[dataset] for name in ("baseline", "distilled"))
    gains = after.columns[TABLE_METRIC] - before.columns[TABLE_METRIC]
    gain_of = {frame.id: gain for frame, gain in zip(after.frames, gains.tolist(), strict=True)}
    shown = [each for each in records if each.id in gain_of and each.mask and read_mask(each.mask).any()]
    return sorted(shown, key=lambda record: gain_of[record.id])[(len(shown) - 1) // 2]


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
    ImageDraw.Draw(row).text((0, TILE_PX), record.id, fill="black", font=ImageFont.load_default(12))
    return row


def paint_agreement(picture: NDArray[np.uint8], truth: NDArray[np.uint8], mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the picture, (H, W, 3), with hits blue, misses yellow and false alarms dark red."""
    painted = picture * 0.55
    for where, colour in ((truth & mask, AGREE), (truth & ~mask & 1, MISSED), (mask & ~truth & 1, FALSE_ALARM)):
        painted[where == 1] += 0.45 * np.array(colour)
    return painted.astype(np.uint8)


def write_page(path: Path, table: str, size: DemoSize) -> None:
    """Write the page that shows the table and the pictures beside it."""
    template = files("difom_train").joinpath("demo.html").read_text(encoding="utf-8")
    rows = [line.split() for line in table.splitlines()[1:]]
    page = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(template)
    write_atomic(path, page.render(rows=rows, size=size, columns=("teacher", "baseline", "distilled")).encode())
