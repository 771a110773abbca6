"""Frames are scored over all cores: one job a frame, in processes of one thread each."""

import multiprocessing
import signal
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

from difom_cache import Record
from difom_cache.base.errors import DataError, ImageError
from difom_cache.base.files import guard_decoder, read_plain
from difom_cache.base.hardware import count_cores
from difom_train.evaluation.metrics import FixedScores, PranetScores, score_fixed, score_pranet, score_pranet_map
from difom_train.inference.frames import FIXED_THRESHOLD, read_truth, write_map, write_mask
from difom_train.inference.segmenter import prob_at_size

FRAMES_WORTH_A_POOL = 48  # starting two processes takes about as long as scoring so many frames
_MAP_FORMATS = ("PNG", "BMP", "TIFF", "JPEG")
JOBS_PER_WORKER = 4  # waiting in line, so that memory stays bounded


@dataclass(frozen=True)
class FrameJob:
    """One frame to score: what the network said, and where the truth lies.

    Attributes:
        record: has a mask.
        logits: (h, w) float32 at the network's size; None where `map_path` stands instead.
        map_path: a saved grey picture of the ground truth's size, white where polyp is sure.
        mask_path: where the mask at threshold 0.5 is written, 1-bit PNG; None writes none.
        prob_path: where the probability is written, grey PNG; None writes none.
        prob_bits: of that PNG.
    """

    record: Record
    logits: NDArray[np.float32] | None = None
    map_path: Path | None = None
    mask_path: Path | None = None
    prob_path: Path | None = None
    prob_bits: Literal[8, 16] = 8


@dataclass(frozen=True)
class FrameScores:
    """One frame under both protocols."""

    record: Record
    pranet: PranetScores
    fixed: FixedScores


def score_frames(jobs: Iterable[FrameJob], *, frames: int, workers: int | None = None) -> Iterator[FrameScores]:
    """Yield each frame's scores, in the order of `jobs`.

    Args:
        jobs: drawn from as room appears, never all at once.
        frames: how many there are.
        workers: processes; 0 scores in this one, None takes every core if there are frames enough.
    """
    if workers is None:
        workers = count_cores() if frames >= FRAMES_WORTH_A_POOL else 0
    if workers < 1:
        yield from map(score_frame, jobs)
        return
    waiting: deque[Future[FrameScores]] = deque()
    spawn = multiprocessing.get_context("spawn")  # a fork would inherit torch's thread pool in an unknown state
    pool = ProcessPoolExecutor(min(workers, frames), mp_context=spawn, initializer=_start_worker)
    try:
        for job in jobs:
            waiting.append(pool.submit(score_frame, job))
            while len(waiting) >= JOBS_PER_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def score_frame(job: FrameJob) -> FrameScores:
    """Return the scores of one frame, and write its mask if the job says where."""
    record = job.record
    truth = read_truth(record)
    prob: NDArray[np.floating]
    if job.map_path is not None:
        levels = read_map(job.map_path)
        prob, pranet = levels / np.float64(np.iinfo(levels.dtype).max), score_pranet_map(levels, truth)
    elif job.logits is not None:
        prob = prob_at_size(job.logits, *truth.shape)
        pranet = score_pranet(prob, truth)
    else:
        raise ValueError(f"job {record.id} has neither logits nor a map")
    if job.mask_path is not None:
        write_mask(job.mask_path, prob >= FIXED_THRESHOLD)
    if job.prob_path is not None:
        write_map(job.prob_path, prob, job.prob_bits)
    return FrameScores(record=record, pranet=pranet, fixed=score_fixed(prob, truth))


def read_map(path: Path) -> NDArray[np.unsignedinteger]:
    """Return a saved probability map as grey levels (H, W), uint8, or uint16 where the file has 16 bits."""
    with guard_decoder(path, ImageError, f"a grey picture of probabilities ({', '.join(_MAP_FORMATS)})"):
        image = Image.open(BytesIO(read_plain(path)), formats=_MAP_FORMATS)
        if image.mode.startswith("I;16"):
            return np.asarray(image).astype(np.uint16)
        if image.mode in ("I", "F"):
            raise DataError(f"{path}: expected a grey picture of 8 or 16 bits, found mode {image.mode}")
        return np.asarray(image.convert("L"))


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is answered by the parent, once
    threadpool_limits(1)  # for as long as the worker lives: OpenBLAS takes every core otherwise, in every worker
    torch.set_num_threads(1)
