"""One block from pictures to published shards: decode, render, teacher, encode, copy, write.

A block is computed by one process, whole; the same block computed anywhere under the same identity has the same bytes.
Pictures are decoded ahead in threads and a block is written while the next one is computed.
"""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

from difom_cache.base.errors import DeviceError, StorageError
from difom_cache.base.hardware import count_cores, is_out_of_memory, torch_threads
from difom_cache.extraction.frames import Frame, read_frame
from difom_cache.extraction.jobs import BlockJob, BlockReport, ViewJob
from difom_cache.extraction.passes import PictureBlock, PicturePass, Stopwatch, TeacherBlock, TeacherPass
from difom_cache.extraction.teachers import load_teacher, name_worker, settle
from difom_cache.store.identity import read_identity
from difom_cache.store.ledger import is_done
from difom_cache.store.schema import PicturesIdentity, TeacherIdentity

READ_AHEAD_BATCHES = 3


def compute_run(jobs: Sequence[BlockJob]) -> tuple[list[BlockReport], StorageError | None]:
    """Compute blocks of one column, what an engine sends to its workers; return the reports, and what the disk said last."""
    done: list[BlockReport] = []
    try:
        for report in compute_blocks(jobs):
            done.append(report)
    except StorageError as error:
        return done, error
    return done, None


def compute_blocks(jobs: Sequence[BlockJob]) -> Iterator[BlockReport]:
    """Compute blocks of one column, one after the other, and yield a report when each is safe on the disk.

    Raises:
        CodecError: a feature cannot be coded; record, view and tap are named.
        DeviceError: the device has too little memory.
        EngineError: this worker would compute something else than the cache's identity says.
    """
    if not jobs:
        return
    folder = jobs[0].cache / jobs[0].folder
    encoder: PicturePass | TeacherPass
    if jobs[0].request is None:
        encoder = PicturePass(read_identity(folder, PicturesIdentity), jobs[0].rows)
    else:
        identity = read_identity(folder, TeacherIdentity)
        request = settle(jobs[0].request, identity, folder)
        encoder = TeacherPass(replace(jobs[0], request=request), identity, load_teacher(request))
    pool = ThreadPoolExecutor(count_cores(), "decode")
    writer = ThreadPoolExecutor(1, "write")
    try:
        with torch_threads(encoder.threads):
            yield from _run(encoder, jobs, pool, writer)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"{encoder.device} ran out of memory with batches of {encoder.batch}: {str(error).splitlines()[0]} "
            "Give the device to this run alone, or extract into another cache with a smaller --batch-size"
        ) from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.shutdown(wait=True, cancel_futures=True)


def _run(
    encoder: PicturePass | TeacherPass, jobs: Iterable[BlockJob], pool: ThreadPoolExecutor, writer: ThreadPoolExecutor
) -> Iterator[BlockReport]:
    watch = Stopwatch(encoder.device)
    writing: deque[Future[BlockReport]] = deque()
    block = None
    for batch in _read_ahead(encoder, jobs, pool):
        job = batch.job
        if batch.skipped:
            yield BlockReport(job.folder, job.block, len(job.views), {}, name_worker(), skipped=True)
            continue
        if block is None:
            block = encoder.start(job)
        with watch.on_host("wait"):
            frames = [frame.result() for frame in batch.frames]
        for frame in {id(frame): frame for frame in frames}.values():
            watch.add("decode", frame.decode_s)
        block.add(batch.views, frames, watch, pool)
        if batch.last:
            with watch.on_host("wait"):
                while writing:  # at most one block waits to be written, so that memory stays bounded
                    yield writing.popleft().result()
            writing.append(writer.submit(_write, block, watch.split()))
            block = None
    while writing:
        yield writing.popleft().result()


def _write(block: "PictureBlock | TeacherBlock", watch: Stopwatch) -> BlockReport:
    seconds = watch.read()  # here, and not where the next block begins: a GPU need not run dry for it
    started_s = time.perf_counter()
    block.publish()
    seconds |= {"write": time.perf_counter() - started_s}
    job = block.job
    return BlockReport(job.folder, job.block, len(job.views), seconds, name_worker())


@dataclass(frozen=True)
class _Batch:
    job: BlockJob
    views: tuple[ViewJob, ...] = ()
    frames: tuple["Future[Frame]", ...] = ()
    last: bool = False
    skipped: bool = False


def _read_ahead(
    encoder: PicturePass | TeacherPass, jobs: Iterable[BlockJob], pool: ThreadPoolExecutor
) -> Iterator[_Batch]:
    """Yield the batches of all jobs, one after the other, with the pictures of the next few being decoded meanwhile."""
    queue: deque[_Batch] = deque()
    for job in jobs:
        if is_done(job.cache, encoder.column, job.block):  # by another writer, since the jobs were listed
            queue.append(_Batch(job, skipped=True))
            continue
        decoding: dict[str, Future[Frame]] = {}
        for start in range(0, len(job.views), encoder.batch):
            views = job.views[start : start + encoder.batch]
            for view in views:
                if view.record.id not in decoding:
                    decoding[view.record.id] = pool.submit(read_frame, view.record, masks=encoder.needs_masks)
            frames = tuple(decoding[view.record.id] for view in views)
            decoding = {view.record.id: frame for view, frame in zip(views[-1:], frames[-1:], strict=True)}
            queue.append(_Batch(job, views, frames, last=start + encoder.batch >= len(job.views)))
            while len(queue) > READ_AHEAD_BATCHES:
                yield queue.popleft()
    yield from queue
