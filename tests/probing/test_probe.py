"""Probes: logits for every row from a cache's own features, each frame's from masks that are not its own."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_folder import paint_folder
from PIL import Image

from difom_cache import (
    Cache,
    copy,
    draw_budget,
    drop,
    export_hdf5,
    extract,
    import_hdf5,
    info,
    load_records,
    open_cache,
    probe,
    show,
    verify,
    write_manifest,
)
from difom_cache.errors import (
    CacheFormatError,
    CacheIdentityError,
    CacheIncompleteError,
    DataError,
    SettingsError,
)
from difom_cache.probing import KINDS, Lesson, ProbeConfig, chunks, find_labels, settle_head, wait
from difom_cache.probing import column as column_file
from difom_cache.store import read_markers, shard_path

pytestmark = pytest.mark.filterwarnings("ignore:.*keeps its splits")
FRAMES = 36
LABEL = "dinov2-tiny-random-probe-l100-s0"
TAP = f"{LABEL}/logits@16"
LINEAR = {"teachers": "dinov2-tiny-random", "head": "linear", "name": LABEL, "quiet": True}  # fitted in a moment
EXTRACT = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 2, "quiet": True}


def write_grouped(data: Path) -> Path:
    """Return a manifest of painted frames in which every second of the first frames shares a sequence with the next."""
    records = load_records(data)
    grouped = [
        replace(record, group=f"seq{number // 2}" if number < 12 else "", split="val" if number >= 30 else "train")
        for number, record in enumerate(records)
    ]
    write_manifest(grouped, data / "manifest.csv")
    return data / "manifest.csv"


@pytest.fixture(scope="module")
def painted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = paint_folder(tmp_path_factory.mktemp("data") / "frames", frames=FRAMES)
    extract(data=write_grouped(root), cache=root / "feats", plan="pad", **EXTRACT)
    return root


@pytest.fixture
def feats(painted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(painted / "feats", tmp_path / "feats"))


def logits_of(cache: Path, tap: str = "") -> np.ndarray:
    opened = open_cache(cache)
    tap = tap or next(tap for tap in opened.taps if tap.startswith(f"{LABEL}/"))
    return np.asarray(opened.gather(np.arange(len(opened)), [tap], pictures=False)[f"{tap}/code"])


def rows_of_frame(cache: Cache, number: int) -> np.ndarray:
    return np.flatnonzero(cache.table.record == number)


def test_a_probe_is_a_column_like_any_other(feats: Path, tmp_path: Path) -> None:
    before = open_cache(feats).content_digests()
    report = probe(cache=feats, **LINEAR)
    opened = open_cache(feats)
    assert report.label == LABEL and report.tap == TAP
    assert (opened.taps[TAP].kind, opened.taps[TAP].channels, opened.taps[TAP].codec) == ("logits", 1, "float16")
    assert opened.taps[TAP].grid == max(tap.grid for name, tap in opened.taps.items() if name != TAP)
    assert opened.content_digests()["teachers/dinov2-tiny-random"] == before["teachers/dinov2-tiny-random"]

    assert info(feats)["columns"][f"teachers/{LABEL}"]["finished_blocks"] == opened.column(f"teachers/{LABEL}").blocks
    assert verify(feats).sound
    show(feats, out=tmp_path / "view.png")
    copy(feats, tmp_path / "copy")
    export_hdf5(feats, tmp_path / "feats.h5")
    import_hdf5(tmp_path / "feats.h5", tmp_path / "back")
    for other in (tmp_path / "copy", tmp_path / "back"):
        assert open_cache(other).content_digests() == opened.content_digests()
        assert open_cache(other).seen_masks(LABEL) == opened.seen_masks(LABEL) != frozenset()
        assert verify(other, recompute=8, teacher=[LABEL]).recomputed[TAP]["max_error"] < 1e-2
    drop(feats, LABEL)
    assert open_cache(feats).content_digests() == before


def test_statistics_count_the_valid_cells_of_training_views(feats: Path) -> None:
    probe(cache=feats, **LINEAR)
    opened = open_cache(feats)
    reference = opened.stats(next(tap for tap in opened.taps if opened.taps[tap].grid == opened.taps[TAP].grid))
    assert opened.stats(TAP).count == reference.count  # the same cells on the same grid count for teacher and probe
    assert opened.stats(TAP).count < (opened.table.split == 0).sum() * opened.taps[TAP].grid ** 2, "the plan pads"


def test_heads_find_the_polyps_of_frames_that_they_did_not_see(feats: Path) -> None:
    report = probe(cache=feats, **LINEAR)
    assert report.masks == report.crossfitted.frames == 30 and report.validation.frames == 6
    assert report.crossfitted.dice > 0.6 and report.validation.dice > 0.6  # all foreground gives about .3


def change_mask(data: Path, frame: int) -> None:
    stem = open_cache(data / "feats").table.ids[frame].rpartition("/")[2]
    path = data / "masks" / f"{stem}.png"
    mask = np.asarray(Image.open(path).convert("L")) > 0
    Image.fromarray(~mask).save(path)


@pytest.mark.parametrize("head", list(KINDS))
def test_the_mask_of_a_frame_does_not_reach_its_own_logits(
    painted: Path, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One mask is turned inside out: every head that may see it changes, the frame's own and its sequence's does not."""
    monkeypatch.setattr(KINDS[head], "STEPS", 30, raising=False)
    frame, sister = 4, 5
    before, after = compare_with_other_mask(painted, tmp_path, frame, head)
    opened = open_cache(tmp_path / "feats")
    own = np.concatenate([rows_of_frame(opened, frame), rows_of_frame(opened, sister)])
    assert len(own) == 4  # two views each
    np.testing.assert_array_equal(after[own], before[own])
    changed = (after != before).any((1, 2, 3))
    assert changed[opened.table.split == 1].all(), "validation rows hear every head"
    assert 0.5 < changed.mean() < 1


def test_the_proof_of_cross_fitting_can_fail(painted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lesson, "parts_without", lambda self, fold, views: [*chunks(0, self.ends[-1], views)])
    before, after = compare_with_other_mask(painted, tmp_path, 4, "linear")
    own = rows_of_frame(open_cache(tmp_path / "feats"), 4)
    assert (after[own] != before[own]).any()


def compare_with_other_mask(painted: Path, tmp_path: Path, frame: int, head: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of all rows, before and after the mask of one frame is changed in another cache."""
    name = {"head": head, "name": LABEL, "folds": 3, "quiet": True}
    whole = Path(shutil.copytree(painted, tmp_path / "frames"))  # its name is the data set, and so in every id
    probe(cache=whole / "feats", teachers="dinov2-tiny-random", **name)
    change_mask(whole, frame)
    extract(data=write_grouped(whole), cache=tmp_path / "feats", plan="pad", **EXTRACT)
    probe(cache=tmp_path / "feats", teachers="dinov2-tiny-random", **name)
    there, here = open_cache(whole / "feats"), open_cache(tmp_path / "feats")
    assert here.teachers[LABEL].probe.masks_sha256 != there.teachers[LABEL].probe.masks_sha256
    return logits_of(whole / "feats"), logits_of(tmp_path / "feats")


def test_a_budget_is_learnt_from_and_nothing_else(feats: Path) -> None:
    report = probe(
        cache=feats, teachers="dinov2-tiny-random", head="linear", labels=0.5, labels_seed=3, folds=3, quiet=True
    )
    opened = open_cache(feats)
    records = opened.table.records
    groups = [line["group"] or line["id"] for line in records]
    budget = draw_budget(groups, np.ones(FRAMES, bool), share=0.5, labels_seed=3)
    wanted = {
        line["mask_sha256"] for line, kept in zip(records, budget, strict=True) if kept and line["split"] == "train"
    }
    assert report.label == "dinov2-tiny-random-probelinear-l50-s3"
    assert opened.seen_masks(report.label) == wanted and len(wanted) == report.masks
    assert report.validation.frames == sum(line["split"] == "val" for line in np.array(records)[budget])
    assert opened.seen_masks("dinov2-tiny-random") == frozenset()


def test_a_teachers_name_is_enough_where_the_cache_has_one_variant(feats: Path) -> None:
    opened = open_cache(feats)
    assert find_labels(opened, ["dinov2", "dinov2-tiny-random"]) == ("dinov2-tiny-random",)
    assert find_labels(opened, ["sam"]) == ("sam",)  # refused by name when it is looked for
    opened.teachers["dinov2-small"] = opened.teachers["dinov2-tiny-random"]
    with pytest.raises(SettingsError, match="holds dinov2-tiny-random, dinov2-small; name the one that is meant"):
        find_labels(opened, ["dinov2"])


def test_the_same_probe_again_changes_nothing_and_another_is_refused(feats: Path) -> None:
    first = probe(cache=feats, **LINEAR)
    digest = open_cache(feats).content_digests()["cache"]
    again = probe(cache=feats, **LINEAR)
    assert (first.blocks > 1, again.blocks) == (True, 0)
    assert open_cache(feats).content_digests()["cache"] == digest
    with pytest.raises(
        CacheIdentityError, match=r"probe\.folds: held 5, this run 3.*--teacher dinov2-tiny-random-probe"
    ):
        probe(cache=feats, teachers="dinov2-tiny-random", folds=3, quiet=True)


def test_a_probe_stopped_half_way_leaves_whole_blocks_and_is_finished_by_the_next(
    feats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Path(shutil.copytree(feats, tmp_path / "whole"))
    probe(cache=whole, **LINEAR)
    write_block, written = column_file.write_block, []

    def stop_after_one(*args: object, **kwargs: object) -> object:
        if written:
            raise KeyboardInterrupt
        written.append(1)
        return write_block(*args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(column_file, "write_block", stop_after_one)
        with pytest.raises(KeyboardInterrupt):
            probe(cache=feats, **LINEAR)
    half = open_cache(feats)
    column = half.column(f"teachers/{LABEL}")
    assert len(read_markers(feats, column)) == 1 < column.blocks
    assert verify(feats).sound
    with pytest.raises(CacheIncompleteError, match="difom-cache probe"):
        half.gather(np.arange(len(half)), [TAP])
    heads = (feats / column.folder / "heads.safetensors").read_bytes()
    assert probe(cache=feats, **LINEAR).blocks == column.blocks - 1
    assert (feats / column.folder / "heads.safetensors").read_bytes() == heads
    assert open_cache(feats).content_digests() == open_cache(whole).content_digests()


KILLED = """
import os, signal, sys
from difom_cache import probe
from difom_cache.store import writer

write_marker, marked = writer.write_marker, []

def kill_before_the_second(*args):
    if marked:
        os.kill(os.getpid(), signal.SIGKILL)
    marked.append(write_marker(*args))

writer.write_marker = kill_before_the_second
probe(cache=sys.argv[1], teachers="dinov2-tiny-random", head="linear", name="dinov2-tiny-random-probe-l100-s0", quiet=True)
"""


def test_a_probe_killed_between_shard_and_marker_ends_as_if_it_had_not_been(feats: Path, tmp_path: Path) -> None:
    whole = Path(shutil.copytree(feats, tmp_path / "whole"))
    probe(cache=whole, **LINEAR)
    one_thread = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", KILLED, str(feats)], check=False, env=one_thread)
    assert killed.returncode == -signal.SIGKILL
    column = open_cache(feats).column(f"teachers/{LABEL}")
    assert len(read_markers(feats, column)) == 1
    assert probe(cache=feats, **LINEAR).blocks == column.blocks - 1
    assert open_cache(feats).content_digests() == open_cache(whole).content_digests()
    assert not list(feats.rglob(".tmp-*"))


def test_a_damaged_block_is_made_anew(feats: Path) -> None:
    probe(cache=feats, **LINEAR)
    digest = open_cache(feats).content_digests()["cache"]
    column = open_cache(feats).column(f"teachers/{LABEL}")
    shard = shard_path(feats, column, column.arrays[0], 1)
    shard.write_bytes(bytes([shard.read_bytes()[0] ^ 1]) + shard.read_bytes()[1:])
    report = verify(feats)
    assert report.damaged == {column.folder: [1]}
    assert probe(cache=feats, **LINEAR).blocks == 1
    assert open_cache(feats).content_digests()["cache"] == digest


def test_verify_refits_a_probe_and_sees_logits_that_its_masks_do_not_give(feats: Path) -> None:
    probe(cache=feats, **LINEAR)
    honest = verify(feats, recompute=20, teacher=[LABEL])
    assert honest.sound and honest.recomputed[TAP]["max_error"] < 1e-2
    assert honest.recomputed[TAP]["cosine_mean"] > 0.9999
    other = probe(cache=feats, teachers="dinov2-tiny-random", head="linear", labels_seed=1, name="other", quiet=True)
    folder = feats / "teachers" / other.label
    identity = json.loads((folder / "identity.json").read_text())
    identity["probe"]["labels_seed"] = 0  # as if it were the first one's
    (folder / "identity.json").write_text(json.dumps(identity))
    assert verify(feats, recompute=20, teacher=["other"]).recomputed[other.tap]["max_error"] > 0.05


def test_verify_says_what_a_probe_cannot_be_recomputed_without(feats: Path, tmp_path: Path) -> None:
    probe(cache=feats, **LINEAR)
    copy(feats, tmp_path / "alone", taps=[TAP])
    report = verify(tmp_path / "alone", recompute=4)
    assert report.notes == [
        f"{LABEL}: not recomputed, as the cache lacks the teachers dinov2-tiny-random that this probe was made of"
    ]


def test_taps_are_brought_to_one_grid_of_the_stride_asked_for(feats: Path) -> None:
    report = probe(cache=feats, teachers="dinov2-tiny-random", head="linear", stride=32, name="coarse", quiet=True)
    assert report.tap == "coarse/logits@32" and logits_of(feats, report.tap).shape[1:] == (1, 2, 2)
    for stride, wrong in ((24.0, "24"), (4.0, "4")):
        with pytest.raises(SettingsError, match=f"--stride {wrong}: expected a divisor of the 64 px"):
            probe(cache=feats, teachers="dinov2-tiny-random", head="linear", stride=stride, quiet=True)


def test_frames_without_masks_get_logits_and_teach_nothing(tmp_path: Path) -> None:
    data = paint_folder(tmp_path / "data", frames=16, unlabelled=4)
    extract(data=data, cache=tmp_path / "feats", unlabelled=True, **EXTRACT)
    report = probe(cache=tmp_path / "feats", teachers="dinov2-tiny-random", head="linear", folds=2, quiet=True)
    opened = open_cache(tmp_path / "feats")
    assert report.masks + report.validation.frames == 12
    logits = logits_of(tmp_path / "feats", report.tap)[opened.table.labelled == 0]
    assert len(logits) and np.isfinite(logits).all() and logits.std() > 0


def test_what_cannot_be_meant_is_refused_before_anything_is_written(feats: Path, tmp_path: Path, painted: Path) -> None:
    with pytest.raises(CacheFormatError, match="did you mean 'dinov2-tiny-random'"):
        probe(cache=feats, teachers="dino2", quiet=True)
    with pytest.raises(SettingsError, match="folds=1: must be at least 2"):
        probe(cache=feats, teachers="dinov2-tiny-random", folds=1, quiet=True)
    with pytest.raises(SettingsError, match="expected one plain name"):
        probe(cache=feats, teachers="dinov2-tiny-random", name="../out", quiet=True)
    with pytest.raises(DataError, match="which 40 folds cannot share"):
        probe(cache=feats, teachers="dinov2-tiny-random", folds=40, quiet=True)
    with pytest.raises(CacheFormatError):
        probe(cache=tmp_path / "nothing", teachers="dinov2-tiny-random", quiet=True)
    assert [path.name for path in (feats / "teachers").iterdir() if path.is_dir()] == ["dinov2-tiny-random"]
    probe(cache=feats, **LINEAR)
    with pytest.raises(SettingsError, match="it is a probe already"):
        probe(cache=feats, teachers=["dinov2", LABEL], quiet=True)
    copy(feats, tmp_path / "bare", pictures=False)
    with pytest.raises(CacheIncompleteError, match="holds no masks"):
        probe(cache=tmp_path / "bare", teachers="dinov2-tiny-random", quiet=True)


def test_a_decoder_is_the_head_of_who_names_none_and_tells_finer_cells_apart(feats: Path) -> None:
    report = probe(cache=feats, teachers="dinov2-tiny-random", folds=2, quiet=True)
    opened = open_cache(feats)
    assert (
        report.tap == f"{LABEL}/logits@4" and opened.taps[report.tap].grid == 16
    )  # four for each of the finest tap's 4
    assert opened.teachers[LABEL].probe.head == "decoder"
    assert report.crossfitted.dice > 0.6 and report.validation.dice > 0.6
    assert verify(feats, recompute=8, teacher=[LABEL]).recomputed[report.tap]["max_error"] < 1e-2


def test_a_probe_of_an_earlier_version_keeps_its_head_and_another_head_gets_another_name(feats: Path) -> None:
    """Earlier versions fitted linear heads where nobody named one, under the name that names none."""
    wanted = probe(cache=feats, **LINEAR)
    shutil.rmtree(feats / "teachers" / LABEL / "ticks")  # as if it had been stopped before its first block
    again = probe(cache=feats, teachers="dinov2", quiet=True)
    assert (again.label, again.tap, again.blocks) == (LABEL, TAP, wanted.blocks)
    assert probe(cache=feats, teachers="dinov2", head="linear", quiet=True).label == LABEL
    named = {head: settle_head(open_cache(feats), head_order(feats, head))[1] for head in KINDS}
    assert named == {
        "linear": LABEL,
        "3x3": "dinov2-tiny-random-probe3x3-l100-s0",
        "decoder": "dinov2-tiny-random-probedecoder-l100-s0",
    }
    drop(feats, LABEL)
    named = {head: settle_head(open_cache(feats), head_order(feats, head))[1] for head in KINDS}
    assert (named["decoder"], named["linear"]) == (LABEL, "dinov2-tiny-random-probelinear-l100-s0")


def head_order(cache: Path, head: str) -> ProbeConfig:
    return ProbeConfig(cache=cache, teachers=("dinov2-tiny-random",), head=head)


def test_a_long_wait_for_one_run_is_said_to_be_worth_making_once(
    feats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(KINDS["decoder"], "STEPS", 10)
    probe(feats, into=tmp_path / "one", teachers="dinov2")
    assert "make it once" not in capfd.readouterr().err
    monkeypatch.setattr(wait, "LONG_S", 0)
    probe(feats, into=tmp_path / "two", teachers="dinov2", labels=0.5)
    said = capfd.readouterr().err
    assert "dinov2-tiny-random-probe-l50-s0: 5 heads on 30 views of 15 masks, then logits of 66 views: about" in said
    order = f"difom-cache probe {feats} --teachers dinov2-tiny-random --labels 0.5 --labels-seed 0"
    assert f"for several runs make it once: {order}" in said
    assert not (feats / "teachers" / "dinov2-tiny-random-probe-l50-s0").exists()


def test_columns_beside_a_cache_are_those_of_its_own_rows(feats: Path, tmp_path: Path) -> None:
    probe(feats, into=tmp_path / "beside", **LINEAR)
    assert verify(tmp_path / "beside").sound
    probe(feats, **LINEAR)

    def describe(cache: Cache) -> tuple[object, ...]:
        return cache.content_digests(), cache.taps, cache.stats(TAP).count, cache.seen_masks(LABEL)

    wanted = describe(open_cache(feats))
    drop(feats, LABEL)
    assert describe(open_cache(feats, beside=tmp_path / "beside")) == wanted
    identity = feats / "identity.json"
    identity.write_text(json.dumps(json.loads(identity.read_text()) | {"records_sha256": "0" * 64}))
    with pytest.raises(CacheIdentityError, match="holds columns of other views than those of"):
        open_cache(feats, beside=tmp_path / "beside")


@pytest.mark.parametrize("head", ["3x3", "decoder"])
def test_same_settings_give_the_same_heads_whatever_lay_in_memory(
    feats: Path, tmp_path: Path, head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KINDS[head], "STEPS", 30)
    other = Path(shutil.copytree(feats, tmp_path / "other"))
    for cache in (feats, other):
        torch.manual_seed(hash(str(cache)) % 1000)
        probe(cache=cache, teachers="dinov2-tiny-random", head=head, folds=2, quiet=True)
    assert open_cache(feats).content_digests() == open_cache(other).content_digests()
