"""A trained student marks polyps in pictures or in a video."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, Unpack

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from difom_cache import read_image
from difom_cache.base.atomic import draft_of
from difom_cache.base.errors import DataError, ImageError
from difom_cache.base.files import read_plain
from difom_cache.base.hardware import explain_memory
from difom_cache.base.options import read_call
from difom_cache.base.outputs import check_out_folder, check_outputs
from difom_cache.base.progress import explain_wait, track
from difom_cache.base.text import Shown, name_some
from difom_cache.data import PICTURE_SUFFIXES, VIDEO_SUFFIXES, VideoReader, write_picture
from difom_train.commands import PredictConfig
from difom_train.inference.frames import FIXED_THRESHOLD, write_mask
from difom_train.inference.outline import Polyp, draw_outline, list_polyps
from difom_train.inference.segmenter import (
    Segmenter,
    choose_batch,
    load_segmenter,
    prob_at_size,
    render_picture,
    segment,
)
from difom_train.inference.video import VideoWriter
from difom_train.students.outside import StudentSources

if TYPE_CHECKING:
    from difom_train.keywords import PredictKeywords

MASK_VIDEO, OUTLINE_VIDEO = "masks.mkv", "outlines.mp4"
OUTLINE_COLOUR = (0, 220, 255)  # of what colour-blind readers, too, tell from tissue


@dataclass(frozen=True, repr=False)
class Predictions(Shown):
    """What was written, and what was not.

    Attributes:
        folder: where everything lies.
        frames: pictures or video frames that were marked.
        with_polyps: those with at least one polyp.
        problems: one line for everything that was asked for and not done.
    """

    folder: Path
    frames: int
    with_polyps: int
    problems: tuple[str, ...]

    def render(self) -> str:
        """Return one line a fact."""
        return "\n".join([self._line(), *(f"not done: {problem}" for problem in self.problems)])

    def _line(self) -> str:
        return f"{self.frames} frames, {self.with_polyps} with polyps: {self.folder}"

    def _table(self) -> list[list[object]]:
        return [["frames", "with polyps", "not done"], [self.frames, self.with_polyps, len(self.problems)]]

    def as_json(self) -> dict[str, Any]:
        """Return the same for a program."""
        return {**asdict(self), "folder": str(self.folder), "problems": list(self.problems)}


@dataclass(frozen=True)
class _Marked:
    """One frame with its answer."""

    name: str
    picture: NDArray[np.uint8]
    prob: NDArray[np.float32]
    source: Any  # the VideoFrame it came from, or None

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self.prob >= FIXED_THRESHOLD


@explain_memory("Choose a smaller --batch-size, or --device cpu")
def predict(
    run: Path | str | PredictConfig,
    source: Path | str | None = None,
    *,
    student: StudentSources = None,
    **options: "Unpack[PredictKeywords]",
) -> Predictions:
    """Mark polyps in pictures or a video; write masks, outlines and a JSON line a frame at original size.

    Pictures give OUT/masks/NAME.png (1-bit) and OUT/outlines/NAME.jpg; a video gives OUT/masks.mkv (lossless, 0 and 255)
    and OUT/outlines.mp4 at its own frame rate. OUT/polyps.jsonl has for each frame its size and, for each polyp, its
    area in px (`area_px`), its box as COCO has it (`bbox`: x, y, width, height in px) and its mean probability
    (`mean_prob`). Masks are files; `load_student` gives logits in memory. Memory holds one batch, whatever the length.

    Args:
        run: a run folder, "teacher:SPEC" or "probe:CACHE/LABEL"; or the config of the call.
        source: a folder of pictures, a text file with one picture path a line, a picture, or a video.
        student: for a run of your own student: `package.module:Factory`, or the module that was wrapped (see `load_student`).
        **options: as the signature lists them; `out` is needed. A batch is of 1 picture on the CPU by default, where more gains
            nothing, else of 8.

    Raises:
        DataError: the source is missing, empty or no picture, list or video.
        SettingsError: `out` cannot be written, or something would be written outside it, onto an input, onto what is there
            without `force`, or twice.
        RunError: the run holds no trained student.
    """
    config = read_call(PredictConfig, options, run=run, source=source)
    source, folder, force = config.source, config.out, config.force
    if not source.exists():
        raise DataError(f"{source}: expected a folder, a picture, a list or a video, found nothing there")
    check_out_folder(folder)
    table = folder / "polyps.jsonl"
    if source.suffix.lower() in VIDEO_SUFFIXES and source.is_file():
        check_outputs(folder, [folder / MASK_VIDEO, folder / OUTLINE_VIDEO, table], [source], force=force)
        mark: Callable[[Segmenter, PredictConfig, TextIO], Predictions] = _mark_video
        frames = partial(_show_video, source)
    else:
        pictures, aside = list_pictures(source)
        names = _name_outputs(pictures)
        files = [path for name in names for path in _picture_files(folder, name)]
        check_outputs(folder, [*files, table], [*pictures, *([source] if source.is_file() else [])], force=force)
        mark = partial(_mark_pictures, pictures=pictures, names=names, aside=aside)
        frames = partial(_show_pictures, pictures, config.max_pixels)
    with explain_wait(f"loading {config.run}"):
        own = config.student if student is None else student
        segmenter = load_segmenter(config.run, device=config.device, student=own, frames=frames)
    with draft_of(table) as draft, draft.open("w", encoding="utf-8") as lines:
        return mark(segmenter, config, lines)


def _show_pictures(pictures: Sequence[Path], max_pixels: int | None, input_px: int) -> Iterator[tuple[Tensor, None]]:
    """Yield the pictures as a network sees them, in an order of their names' digests; without those that cannot be read."""
    for path in sorted(pictures, key=lambda each: hashlib.sha256(os.fsencode(each.name)).digest()):
        try:
            picture = read_image(path, max_pixels=max_pixels)
        except ImageError:  # it is named when its turn comes
            continue
        yield render_picture(picture, input_px), None


def _show_video(source: Path, input_px: int) -> Iterator[tuple[Tensor, None]]:
    """Yield a frame a second as a network sees it."""
    reader = VideoReader(source)
    with ExitStack() as stack:
        stack.callback(reader.close)
        for frame in islice(reader, 0, None, max(1, round(reader.rate))):
            yield render_picture(frame.picture, input_px), None


def list_pictures(source: Path) -> tuple[list[Path], list[Path]]:
    """Return the pictures that a folder, a list or a picture means, and the files beside them that are none.

    Raises:
        DataError: no picture is left, or a list names files that are not there.
    """
    if source.is_dir():
        files = sorted(path for path in source.iterdir() if path.is_file() and not path.name.startswith("."))
    elif source.suffix.lower() in PICTURE_SUFFIXES:
        return [source], []
    else:
        files = _read_list(source)
    pictures = [path for path in files if path.suffix.lower() in PICTURE_SUFFIXES]
    if not pictures:
        raise DataError(f"{source}: expected pictures ({', '.join(PICTURE_SUFFIXES)}), found {len(files)} other files")
    kept = set(pictures)
    return pictures, [path for path in files if path not in kept]


def _read_list(source: Path) -> list[Path]:
    try:
        words = [line.strip() for line in read_plain(source).decode("utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{source}: expected a folder, a picture, a list of pictures or a video ({error})") from error
    files = list(
        {os.path.normpath((source.parent / word).absolute()): source.parent / word for word in words if word}.values()
    )
    missing = [str(path) for path in files if not path.is_file()]
    if missing:
        raise DataError(f"{source}: {len(missing)} of {len(files)} files are not there: {name_some(missing)}")
    return files


def _mark_pictures(
    segmenter: Segmenter,
    config: PredictConfig,
    lines: TextIO,
    *,
    pictures: Sequence[Path],
    names: Sequence[str],
    aside: Sequence[Path],
) -> Predictions:
    broken: list[str] = []

    def read() -> Iterator[tuple[str, NDArray[np.uint8], None]]:
        for path, name in zip(track(pictures, "marking", "image"), names, strict=True):
            try:
                picture = read_image(path, max_pixels=config.max_pixels)
            except ImageError as error:  # one bad file must not cost a long run; it is named at the end
                broken.append(str(error))
            else:
                yield name, picture, None

    frames = found = 0
    for marked in _mark(segmenter, read(), choose_batch(segmenter, config.batch_size)):
        mask_path, path = _picture_files(config.out, marked.name)
        write_mask(mask_path, marked.mask)
        if config.outlines:
            outlined = Image.fromarray(draw_outline(marked.picture, marked.mask, OUTLINE_COLOUR))
            write_picture(path, outlined, "JPEG", quality=92)
        found += _write_line(lines, marked, {})
        frames += 1
    if not frames:
        raise DataError(f"{config.source}: none of {len(pictures)} pictures can be read: {broken[0]}")
    others = [f"{len(aside)} files are no pictures: {name_some([path.name for path in aside])}"] if aside else []
    return Predictions(config.out, frames, found, (*broken, *others))


def _mark_video(segmenter: Segmenter, config: PredictConfig, lines: TextIO) -> Predictions:
    source, folder, size = config.source, config.out, choose_batch(segmenter, config.batch_size)
    reader = VideoReader(source)
    frames = found = 0
    with ExitStack() as stack:
        stack.callback(reader.close)
        masks = stack.enter_context(_open_video(folder / MASK_VIDEO, reader.rate, lossless=True))
        drawn = None
        if config.outlines:
            drawn = stack.enter_context(_open_video(folder / OUTLINE_VIDEO, reader.rate, lossless=False))
        bar = track(reader, "marking", "frame", total=reader.frames)
        numbered = ((str(number), frame.picture, frame) for number, frame in enumerate(bar))
        for marked in _mark(segmenter, numbered, size):
            masks.write(marked.mask.astype(np.uint8) * np.uint8(255), marked.source)
            if drawn is not None:
                drawn.write(draw_outline(marked.picture, marked.mask, OUTLINE_COLOUR), marked.source)
            found += _write_line(lines, marked, {"time_s": marked.source.time_s})
            frames += 1
    return Predictions(folder, frames, found, (reader.problem,) if reader.problem else ())


def _mark(segmenter: Segmenter, frames: Iterator[tuple[str, NDArray[np.uint8], Any]], size: int) -> Iterator[_Marked]:
    """Yield each frame with its probability at its own size, holding one batch at a time."""
    batch: list[tuple[str, NDArray[np.uint8], Any]] = []

    def flush() -> Iterator[_Marked]:
        for (name, picture, source), logits in zip(batch, segment(segmenter, [each[1] for each in batch]), strict=True):
            yield _Marked(name, picture, prob_at_size(logits, *picture.shape[:2]), source)
        batch.clear()

    for frame in frames:
        batch.append(frame)
        if len(batch) == size:
            yield from flush()
    if batch:
        yield from flush()


def _as_coco(polyp: Polyp) -> dict[str, Any]:
    top, left, height, width = polyp.box
    return {"area_px": polyp.area_px, "bbox": [left, top, width, height], "mean_prob": polyp.mean_prob}


def _write_line(lines: TextIO, marked: _Marked, extra: dict[str, Any]) -> bool:
    """Write one frame's JSON line, and return whether it has a polyp."""
    polyps = list_polyps(marked.mask, marked.prob)
    height, width = marked.prob.shape
    line = {
        "frame": marked.name,
        **extra,
        "width": width,
        "height": height,
        "polyps": [_as_coco(each) for each in polyps],
    }
    lines.write(json.dumps(line) + "\n")
    return bool(polyps)


@contextmanager
def _open_video(path: Path, rate: Fraction, *, lossless: bool) -> Iterator[VideoWriter]:
    """Yield a writer whose video appears whole, once the block has ended well."""
    with draft_of(path) as draft, VideoWriter(draft, rate=rate, lossless=lossless) as writer:
        yield writer


def _picture_files(folder: Path, name: str) -> tuple[Path, Path]:
    """Return where the mask and the outlined picture of an input go."""
    return folder / "masks" / f"{name}.png", folder / "outlines" / f"{name}.jpg"


def _name_outputs(pictures: Sequence[Path]) -> list[str]:
    """Return a name for each picture: its path below their common folder, with its suffix only where two would meet.

    Names never climb: `..` is resolved before the common folder is taken. Disks that ignore case are thought of.
    """
    whole = [Path(os.path.normpath(path.absolute())) for path in pictures]
    common = Path(os.path.commonpath([path.parent for path in whole]))
    inside = [path.relative_to(common) for path in whole]
    names = [path.with_suffix("").as_posix() for path in inside]
    while True:
        counts = Counter(name.casefold() for name in names)
        longer = [
            name if counts[name.casefold()] == 1 else path.as_posix() for name, path in zip(names, inside, strict=True)
        ]
        if longer == names:
            return names
        names = longer
