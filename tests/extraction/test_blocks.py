"""One block: the same bytes wherever and in whatever company it is computed, and sums over what the frame shows."""

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from painted_folder import paint_folder
from PIL import Image

from difom_cache import Record, ViewParams, load_records, open_cache, replay_image, replay_mask
from difom_cache.base.atomic import digest_file
from difom_cache.errors import EngineError, ManifestError
from difom_cache.extraction import (
    BlockJob,
    ColumnChoices,
    ColumnWork,
    ViewJob,
    ViewList,
    assert_same_teacher,
    compute_blocks,
    compute_run,
    load_teacher,
    passes,
    prepare_pictures,
    prepare_teacher,
    probe_batch,
    read_frame,
    render,
    start_cache,
    sum_cells,
    to_moments,
    valid_cells,
)
from difom_cache.store import read_markers, shard_path
from difom_cache.teachers import TeacherRequest
from difom_cache.views import draw_plan

CPU = torch.device("cpu")
REQUEST = TeacherRequest("dinov2", "tiny", 56, weights="random", picture_px=64)


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """Seven records, one with an empty mask, one without any, one of them for validation."""
    data = paint_folder(tmp_path_factory.mktemp("blocks"), frames=7, empty=1, unlabelled=1)
    found = load_records(data, unlabelled=True)
    return [replace(record, split="val" if record.id.endswith("003") else "train") for record in found]


def prepare(
    cache: Path, records: list[Record], asked: TeacherRequest | None, *, policy: str = "default", batch: int = 4
) -> tuple[ColumnWork, list[BlockJob]]:
    """Return a column of three views a record, and a job for each of its blocks."""
    plan = draw_plan(records, views=3, seed=0, policy=policy)
    views = ViewList(records, plan)
    start_cache(cache, records, plan, views=3, picture_px=64)
    if asked is None:
        work = prepare_pictures(cache, picture_px=64, pads=policy == "pad", rows=len(views), dry=False)
    else:
        work = prepare_teacher(cache, asked, ColumnChoices(batch=batch), views)
    column = work.column
    parts = [tuple(views[slice(*column.range_of(block))]) for block in range(column.blocks)]
    jobs = [BlockJob(cache, column.folder, n, column.rows, part, asked) for n, part in enumerate(parts)]
    return work, jobs


def digests(cache: Path, work: ColumnWork) -> dict[str, Any]:
    return {f"{n}/{name}": d for n, t in read_markers(cache, work.column).items() for name, d in t.files.items()}


def view(**numbers: int) -> ViewParams:
    return ViewParams(0, 0, 32, 40, **numbers)


def test_a_block_alone_has_the_bytes_it_has_among_others(records: list[Record], tmp_path: Path) -> None:
    together, jobs = prepare(tmp_path / "together", records, REQUEST)
    alone, single = prepare(tmp_path / "alone", records, REQUEST)
    assert len(jobs) > 1
    list(compute_blocks(jobs))
    for job in reversed(single):
        compute_run([job])
    assert digests(tmp_path / "together", together) == digests(tmp_path / "alone", alone)


def test_padding_a_batch_changes_no_view_in_it(records: list[Record]) -> None:
    teacher = load_teacher(REQUEST)
    plan = draw_plan(records, views=3, seed=0)
    views = ViewList(records, plan)[:4]
    frames = [read_frame(job.record, masks=False) for job in views]
    full = teacher.features(render(views, frames, 56, 4, CPU))
    padded = teacher.features(render(views[:1], frames[:1], 56, 4, CPU))
    for name, native in full.items():
        assert torch.equal(native[0], padded[name][0])


def test_rendering_fills_the_batch_with_black(records: list[Record]) -> None:
    frame = read_frame(records[0], masks=False)
    pixels = render([ViewJob(records[0], view(flip_h=1), True, 1)], [frame], 28, 3, CPU)
    assert pixels.shape == (3, 3, 28, 28)
    assert torch.equal(pixels[0], replay_image(frame.image, view(flip_h=1), 28))
    assert not pixels[1:].any()


def test_stored_pictures_and_masks_are_the_replayed_ones(records: list[Record], tmp_path: Path) -> None:
    work, jobs = prepare(tmp_path, records, None)
    list(compute_blocks(jobs))
    cache, plan = open_cache(tmp_path), draw_plan(records, views=3, seed=0)
    batch = cache.gather(np.arange(len(plan)), [])
    for row, job in enumerate(ViewList(records, plan)):
        frame = read_frame(job.record, masks=True)
        image = (replay_image(frame.image, plan[row], 64) * 255).round().byte().permute(1, 2, 0)
        np.testing.assert_array_equal(batch["image"][row], image.numpy())
        if frame.mask is None:
            assert (batch["mask"][row] == 255).all()
            assert not cache.table.labelled[row]
        else:
            np.testing.assert_array_equal(batch["mask"][row], replay_mask(frame.mask, plan[row], 64).numpy())
    assert work.column.blocks == len(jobs) > 1


def test_an_empty_mask_is_stored_as_zeros_and_an_absent_one_as_255(records: list[Record], tmp_path: Path) -> None:
    _, jobs = prepare(tmp_path, records, None)
    list(compute_blocks(jobs))
    cache = open_cache(tmp_path)
    empty, absent = (next(i for i, r in enumerate(records) if r.id.endswith(stem)) for stem in ("000", "006"))
    mask = cache.gather(np.arange(len(cache)), [])["mask"]
    assert (mask[cache.table.record == empty] == 0).all()
    assert (mask[cache.table.record == absent] == 255).all()


def test_a_block_that_another_writer_finished_is_skipped(records: list[Record], tmp_path: Path) -> None:
    _, jobs = prepare(tmp_path, records, None)
    compute_run(jobs[:1])
    reports = {report.block: report for report in compute_blocks(jobs)}
    assert [reports[n].skipped for n in sorted(reports)] == [True] + [False] * (len(jobs) - 1)


def test_a_report_counts_views_and_seconds_of_every_stage(records: list[Record], tmp_path: Path) -> None:
    _, jobs = prepare(tmp_path, records, REQUEST)
    ((report,), _) = compute_run(jobs[:1])
    assert (report.folder, report.block, report.views) == ("teachers/dinov2-tiny-random", 0, len(jobs[0].views))
    assert report.seconds["teacher"] > 0 and report.seconds["decode"] > 0 and report.seconds["write"] > 0


def test_a_picture_that_changed_since_the_plan_was_drawn_is_refused(records: list[Record], tmp_path: Path) -> None:
    copy = Path(shutil.copy(records[0].image, tmp_path / "picture.png"))
    changed = replace(records[0], image=copy)
    read_frame(changed, masks=False)
    Image.new("RGB", (40, 32)).save(copy)
    with pytest.raises(ManifestError, match=r"picture\.png"):
        read_frame(changed, masks=False)


def test_a_worker_with_another_teacher_refuses_to_write(records: list[Record], tmp_path: Path) -> None:
    work, jobs = prepare(tmp_path, records, REQUEST)
    held = work.identity.changed(teacher=work.identity.to_dict()["teacher"] | {"weights_digest": "0" * 64})
    with pytest.raises(EngineError, match=r"would write other features.*weights_digest: held 000000000000"):
        assert_same_teacher(held, load_teacher(REQUEST).spec, jobs[0].cache / jobs[0].folder)


def test_the_thread_count_of_the_identity_holds_while_blocks_are_computed(
    records: list[Record], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    whole_render = passes.render

    def watch(*arguments: Any) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return whole_render(*arguments)

    monkeypatch.setattr(passes, "render", watch)
    before = torch.get_num_threads()
    monkeypatch.setattr("difom_cache.extraction.teacher_column.torch.get_num_threads", lambda: 1)
    _, jobs = prepare(tmp_path, records, REQUEST)
    monkeypatch.undo()
    monkeypatch.setattr(passes, "render", watch)
    try:
        torch.set_num_threads(2)
        compute_run(jobs[:1])
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_on_the_cpu_batches_are_small_powers_of_two() -> None:
    assert probe_batch(load_teacher(REQUEST), "cpu") == 8
    assert probe_batch(load_teacher(replace(REQUEST, input_px=616)), "cpu") == 2  # 4 x 512^2 / 616^2 = 2.8


@pytest.mark.parametrize("free_bytes", [10_000, 1_000_000])
def test_on_a_gpu_the_batch_fits_into_what_is_free_and_what_cublas_can_have(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int
) -> None:
    """A view takes 1,000 bytes: of 10,000 free ones 80 % hold 8. With more, cuBLAS has no room for 32 of them."""
    seen: list[int] = []

    def features(pixels: torch.Tensor) -> None:
        seen.append(len(pixels))
        if len(pixels) == 32:
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")

    for name in ("reset_peak_memory_stats", "synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda *_: None)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=80_000_000))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free_bytes, 80_000_000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda _: 0)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 1_000 * seen[-1])
    monkeypatch.setattr(torch, "zeros", lambda shape, device: torch.empty(shape, device="meta"))
    teacher: Any = SimpleNamespace(spec=SimpleNamespace(input_px=32), features=features)
    assert probe_batch(teacher, "cuda") == {10_000: 8, 1_000_000: 16}[free_bytes]


def test_cells_of_a_view_without_corners_count_where_half_of_them_shows_the_frame(records: list[Record]) -> None:
    # Turned by 45 degrees the frame is a diamond |x| + |y| <= sqrt(1/2) about the centre, in sides of the view. On a 4 x 4
    # grid the four corner cells' nearest corners have |x| + |y| = 1/2 and their centres 3/4 > 0.707: under half is shown.
    corner = ViewJob(records[0], view(angle_mdeg=45_000, pad=1), True, 1)
    cells = valid_cells([corner, ViewJob(records[0], view(), True, 0)], 4, CPU)
    assert cells[1].all()
    expected = torch.ones(4, 4, dtype=torch.bool)
    expected[0, 0] = expected[0, 3] = expected[3, 0] = expected[3, 3] = False
    assert torch.equal(cells[0], expected)


def test_sums_leave_cells_out_that_do_not_count() -> None:
    target = torch.tensor([[[[1.0, 2.0]], [[3.0, 5.0]]], [[[7.0, 9.0]], [[0.0, 1.0]]]])  # (2, 2, 1, 2)
    counts = torch.tensor([[[True, False]], [[False, True]]])
    moments = to_moments(sum_cells(target, counts))
    assert (moments.count, moments.total.tolist()) == (2, [10.0, 4.0])  # cells (1, 3) and (9, 1)
    assert moments.product.tolist() == [[82.0, 12.0], [12.0, 10.0]]


@pytest.mark.parametrize("policy", ["pad", "default"])
def test_statistics_are_those_of_valid_cells_of_training_views(
    records: list[Record], tmp_path: Path, policy: str
) -> None:
    _, jobs = prepare(tmp_path, records, REQUEST, policy=policy)
    list(compute_blocks(jobs))
    cache = open_cache(tmp_path)
    plan = draw_plan(records, views=3, seed=0, policy=policy)
    views = ViewList(records, plan)
    assert any(not job.train for job in views)
    finest = max(spec.grid for spec in cache.taps.values())
    assert valid_cells(views, finest, CPU).all() == (policy == "default")
    for tap, spec in cache.taps.items():
        batch = cache.gather(np.arange(len(plan)), [tap], pictures=False)
        target = cache.decode(tap, batch[f"{tap}/code"], batch[f"{tap}/scale"]).astype(np.float64)
        counts = valid_cells(views, spec.grid, CPU).numpy()
        assert counts.all() or policy == "pad"
        train = np.array([job.train for job in views])
        cells = target.transpose(0, 2, 3, 1)[train][counts[train]]  # (cells, C)
        stats = cache.stats(tap)
        assert stats.count == len(cells)
        np.testing.assert_allclose(stats.mean, cells.mean(0), atol=1e-5 * np.abs(cells).max())
        np.testing.assert_allclose(stats.covariance, np.cov(cells.T, bias=True), atol=1e-5 * (cells**2).mean())


def test_a_plan_that_pads_stores_its_valid_area(records: list[Record], tmp_path: Path) -> None:
    _, jobs = prepare(tmp_path, records, None, policy="pad")
    list(compute_blocks(jobs))
    cache = open_cache(tmp_path)
    batch = cache.gather(np.arange(len(cache)), [])
    plain = cache.rows_of(view=0)
    assert (batch["valid"][plain] == 1).all()
    assert (batch["valid"] == 0).any()
    assert not batch["image"][batch["valid"] == 0].any()
    assert not batch["mask"][(batch["valid"] == 0) & (batch["mask"] != 255)].any()


def test_a_marker_promises_the_files_that_lie_there(records: list[Record], tmp_path: Path) -> None:
    work, jobs = prepare(tmp_path, records, REQUEST)
    compute_run(jobs[:1])
    (marker,) = read_markers(tmp_path, work.column).values()
    for array in work.column.arrays:
        assert digest_file(shard_path(tmp_path, work.column, array, 0)) == marker.files[array.path]
    for tap in work.identity.taps:
        assert marker.fidelity[tap.name].positions == len(jobs[0].views) * tap.grid**2


@pytest.mark.parametrize("channels", [1, 100, 128, 300])
def test_sums_of_products_are_those_of_the_cells_that_count(channels: int) -> None:
    target = torch.randn(2, channels, 5, 5, generator=torch.Generator().manual_seed(0))
    counts = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(1)) < 0.7
    count, total, product = sum_cells(target, counts)
    cells = target.permute(0, 2, 3, 1)[counts].double()
    assert int(count) == len(cells)
    torch.testing.assert_close(total, cells.sum(0), rtol=0, atol=1e-4)
    torch.testing.assert_close(product, cells.T @ cells, rtol=0, atol=1e-4)
