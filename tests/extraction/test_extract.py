"""From pictures to a cache, and on from whatever an earlier run left: missing, damaged, another's."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from painted_folder import paint_folder
from PIL import Image
from small_cache import SmallCache, teacher_identity, write_small_block, write_small_cache

from difom_cache import describe_teachers, extract, load_records, open_cache, write_manifest
from difom_cache.base import hardware, progress
from difom_cache.errors import (
    CacheFormatError,
    CacheIdentityError,
    CacheIncompleteError,
    CacheSpaceError,
    CodecError,
    ManifestError,
    SettingsError,
    TeacherError,
)
from difom_cache.extraction import (
    EVERY_BLOCK,
    ColumnWork,
    ExtractConfig,
    ExtractReport,
    find_begun,
    find_missing,
    parse_part,
    passes,
    prepare,
    request_teachers,
    run,
)
from difom_cache.store import (
    TeacherIdentity,
    canonical,
    marker_path,
    read_damaged,
    read_markers,
    shard_path,
    withdraw_block,
    write_damaged,
)
from difom_cache.teachers import outline_teacher

SMALL = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 3, "quiet": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=14, empty=1)


@pytest.fixture(scope="module")
def extracted(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished cache; tests copy it before they change it."""
    cache = tmp_path_factory.mktemp("extracted") / "feats"
    assert extract(data=data, cache=cache, **SMALL).complete
    return cache


@pytest.fixture
def feats(extracted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(extracted, tmp_path / "feats"))


@pytest.fixture
def small(tmp_path: Path) -> SmallCache:
    return write_small_cache(tmp_path / "small", leave_out=(1,))


def work_of(small: SmallCache) -> ColumnWork:
    return ColumnWork(small.columns["teachers/one"], TeacherIdentity.build(**teacher_identity()), None)


def again(data: Path, cache: Path, **changed: Any) -> ExtractReport:
    return extract(data=data, cache=cache, **(SMALL | changed))


def test_a_finished_cache_holds_every_view_of_every_record(extracted: Path) -> None:
    cache = open_cache(extracted)
    assert cache.finished_rows().all()
    views = [int((cache.table.record == record).sum()) for record in range(len(cache.table.ids))]
    splits = [line["split"] for line in cache.table.records]
    assert views == [3 if split == "train" else 1 for split in splits]
    assert len(views) == 14


def test_the_same_command_again_computes_nothing(data: Path, feats: Path) -> None:
    before = open_cache(feats).content_digests()
    report = again(data, feats)
    assert report.complete and not report.computed_blocks
    assert open_cache(feats).content_digests() == before


def test_a_config_is_what_the_keywords_are_short_for(data: Path, feats: Path) -> None:
    config = ExtractConfig(
        teacher=("dinov2:tiny@56",), weights=("random",), data=data, cache=feats, input_size=64, views=3
    )
    report = extract(config, quiet=True)
    assert report.complete and not report.computed_blocks
    with pytest.raises(SettingsError, match="a config or keywords, not both: views"):
        extract(config, views=4)
    with pytest.raises(SettingsError, match="no option 'view'; did you mean 'views'"):
        extract(view=4)  # type: ignore[call-arg]


def test_a_missing_block_is_computed_alone_and_to_the_same_bytes(data: Path, feats: Path) -> None:
    cache = open_cache(feats)
    before, column = cache.content_digests(), cache.column("teachers/dinov2-tiny-random")
    withdraw_block(feats, column, 1)
    report = again(data, feats)
    assert report.computed_blocks == {"teachers/dinov2-tiny-random": 1}
    assert open_cache(feats).content_digests() == before


def test_blocks_that_were_begun_in_another_size_stay_in_it(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as old:
        old.setattr(prepare, "choose_block_rows", lambda *_: 8)
        assert extract(data=data, cache=tmp_path / "feats", **SMALL).complete
    cache = open_cache(tmp_path / "feats")
    (label,) = cache.teachers
    column = cache.column(f"teachers/{label}")
    assert column.block_rows == 8
    withdraw_block(tmp_path / "feats", column, 1)
    assert again(data, tmp_path / "feats").computed_blocks == {column.folder: 1}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"seed": 5}, r"plan\.seed: held 0, this run 5"),
        ({"views": 2}, r"plan\.views: held 3, this run 2"),
        ({"plan": "flips"}, r'plan\.policy: held "default", this run "flips"'),
        ({"input_size": 32, "strides": (8,)}, "picture_px: held 64, this run 32"),
        ({"limit": 3}, "records: held 14, this run"),
        ({"codec": "float16"}, r'"int8".* this run .*"float16"'),
        ({"strides": (32,)}, r"block\d@32"),
        ({"batch_size": 2}, "batch: held 8, this run 2"),
    ],
)
def test_a_run_that_would_write_something_else_is_refused_with_both_values(
    data: Path, feats: Path, changed: dict[str, Any], named: str
) -> None:
    before = open_cache(feats).content_digests()
    with pytest.raises(CacheIdentityError, match=named):
        again(data, feats, **changed)
    assert open_cache(feats).content_digests() == before


def test_another_teacher_joins_the_cache_and_leaves_the_first_alone(data: Path, feats: Path) -> None:
    before = open_cache(feats).content_digests()
    assert again(data, feats, teacher="sam:tiny", strides=(32,)).complete
    after = open_cache(feats).content_digests()
    assert set(after) - set(before) == {"teachers/sam-tiny-random"}
    assert after["teachers/dinov2-tiny-random"] == before["teachers/dinov2-tiny-random"]
    assert after["pictures"] == before["pictures"]


def test_a_picture_that_changed_since_its_manifest_was_made_is_named(data: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    write_manifest(load_records(copy), tmp_path / "data.csv")
    Image.new("RGB", (40, 32)).save(copy / "images" / "003.png")
    with pytest.raises(ManifestError, match=r"003\.png"):
        again(tmp_path / "data.csv", tmp_path / "feats")


def test_a_picture_that_changed_since_the_cache_was_begun_is_another_cache(
    data: Path, feats: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(data, tmp_path / "data"))
    Image.new("RGB", (40, 32)).save(copy / "images" / "003.png")
    with pytest.raises(CacheIdentityError, match="records_sha256: held"):
        again(copy, feats)


def test_weights_that_changed_since_are_refused_by_digest(
    data: Path, feats: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = feats / "teachers/dinov2-tiny-random/identity.json"
    identity = json.loads(path.read_text())
    ours = identity["teacher"]["weights_digest"]
    path.write_text(json.dumps(identity | {"teacher": identity["teacher"] | {"weights_digest": "f" * 64}}))
    with pytest.raises(CacheIdentityError, match=rf"weights_digest: held ffff.*this run {ours[:8]}"):
        again(data, feats)


def test_a_newer_cache_is_refused(data: Path, feats: Path) -> None:
    path = feats / "pictures/identity.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 2'))
    with pytest.raises(CacheFormatError, match="version 2, this difom reads version 1"):
        again(data, feats)


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    report = again(data, tmp_path / "feats", dry_run=True)
    assert not (tmp_path / "feats").exists()
    assert not report.complete
    assert report.estimate.missing_bytes > 0


def test_a_dry_run_over_a_damaged_cache_repairs_nothing(data: Path, feats: Path) -> None:
    column = open_cache(feats).column("pictures")
    shard = shard_path(feats, column, column.arrays[0], 0)
    shard.write_bytes(b"short")
    assert again(data, feats, dry_run=True).missing_blocks == {"pictures": 1, "teachers/dinov2-tiny-random": 0}
    assert shard.read_bytes() == b"short"


def test_a_cache_that_is_a_file_is_refused(data: Path, tmp_path: Path) -> None:
    (tmp_path / "feats").write_text("")
    with pytest.raises(CacheSpaceError, match=r"feats is a file; choose a folder"):
        again(data, tmp_path / "feats")


def test_a_cache_without_pictures_says_so_when_they_are_asked_for(data: Path, tmp_path: Path) -> None:
    assert again(data, tmp_path / "feats", pictures=False).complete
    cache = open_cache(tmp_path / "feats")
    assert set(cache.gather([0], pictures=False)) == {f"{t}/{p}" for t in cache.taps for p in ("code", "scale")}
    with pytest.raises(CacheIncompleteError, match="--no-pictures"):
        cache.gather([0])


def test_a_cache_of_nothing_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is nothing to cache: no teacher is named"):
        again(data, tmp_path / "none", teacher=(), pictures=False)
    assert not (tmp_path / "none").exists()


def test_parts_share_the_blocks_and_together_make_the_whole(data: Path, extracted: Path, tmp_path: Path) -> None:
    whole = open_cache(extracted).column("teachers/dinov2-tiny-random").blocks
    first = again(data, tmp_path / "feats", part="1/2")
    assert first.missing_blocks["teachers/dinov2-tiny-random"] == whole // 2 >= 1
    assert again(data, tmp_path / "feats", part="2/2").complete
    assert open_cache(tmp_path / "feats").content_digests() == open_cache(extracted).content_digests()


def test_statistics_are_those_of_the_decoded_training_views(extracted: Path) -> None:
    cache = open_cache(extracted)
    rows = cache.rows_of("train")
    for tap in cache.taps:
        batch = cache.gather(rows, [tap], pictures=False)
        target = cache.decode(tap, batch[f"{tap}/code"], batch[f"{tap}/scale"]).astype(np.float64)
        cells = target.transpose(1, 0, 2, 3).reshape(target.shape[1], -1)
        stats = cache.stats(tap)
        assert stats.count == cells.shape[1]
        np.testing.assert_allclose(stats.mean, cells.mean(1), atol=1e-6 * np.abs(cells).max())
        np.testing.assert_allclose(stats.covariance, np.cov(cells, bias=True), atol=1e-5 * (cells**2).mean())


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/", "/2", "1/2/3"])
def test_a_part_that_does_not_exist_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="--part: expected I/N"):
        parse_part(text)


def test_part_three_of_eight_begins_with_block_two() -> None:
    assert parse_part("3/8") == (2, 8)
    assert parse_part(None) == EVERY_BLOCK == (0, 1)


def test_blocks_without_a_marker_are_missing_in_an_order_of_this_writer(
    small: SmallCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    shuffled: list[list[int]] = []
    monkeypatch.setattr(random, "shuffle", lambda numbers: shuffled.append(list(numbers)))
    assert find_missing(small.path, work_of(small), repair=True) == [1] == shuffled[0]


def test_short_listed_and_unreadable_blocks_are_withdrawn_and_missing(small: SmallCache) -> None:
    column = small.columns["teachers/one"]
    shard_path(small.path, column, column.arrays[0], 0).write_bytes(b"short")
    marker_path(small.path, column, 2).write_text("{")
    write_damaged(small.path, {"teachers/one": [3], "pictures": [0]})
    assert sorted(find_missing(small.path, work_of(small), repair=True)) == [0, 1, 2, 3]
    assert list((small.path / "teachers/one/ticks").iterdir()) == []
    assert list((small.path / "teachers/one/block1@2/code").glob("c.*")) == []
    assert read_damaged(small.path) == {"pictures": [0]}


def test_a_block_that_another_writer_marks_meanwhile_is_left_alone(
    small: SmallCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    column = small.columns["teachers/one"]

    def read_then_write(*given: Any, **options: Any) -> Any:
        markers = read_markers(*given, **options)
        write_small_block(small.path, column, 1, small.arrays, 12)
        return markers

    monkeypatch.setattr("difom_cache.extraction.missing.read_markers", read_then_write)
    find_missing(small.path, work_of(small), repair=True)
    assert sorted(read_markers(small.path, column)) == list(range(column.blocks))
    assert shard_path(small.path, column, column.arrays[0], 1).exists()


def test_a_part_repairs_its_own_blocks_only(small: SmallCache) -> None:
    write_damaged(small.path, {"teachers/one": [2, 3]})
    assert find_missing(small.path, work_of(small), (0, 2), repair=True) == [2]
    assert sorted(read_markers(small.path, small.columns["teachers/one"])) == [0, 3]
    assert read_damaged(small.path) == {"teachers/one": [3]}


def test_a_repair_that_is_killed_half_way_is_taken_up_again(small: SmallCache, monkeypatch: pytest.MonkeyPatch) -> None:
    column = small.columns["teachers/one"]
    shard = shard_path(small.path, column, column.arrays[0], 0)
    shard.write_bytes(b"short")

    def be_killed(cache: Path, column: Any, block: int) -> None:
        marker_path(cache, column, block).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("difom_cache.extraction.missing.withdraw_block", be_killed)
        with pytest.raises(KeyboardInterrupt):
            find_missing(small.path, work_of(small), repair=True)
    assert shard.exists()
    assert sorted(find_missing(small.path, work_of(small), repair=True)) == [0, 1]
    assert not shard.exists(), "the next writer would find the damaged shard and marker it as good"


@pytest.mark.parametrize(
    ("codec", "value", "said"),
    [("int8", float("nan"), "NaN or infinity"), ("float16", 1e6, "float16 holds finite values up to 65504")],
)
def test_a_feature_that_cannot_be_coded_names_record_view_and_tap(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str, value: float, said: str
) -> None:
    whole_pool = passes.area_pool

    def spoil(native: Any, grid: int) -> Any:
        feature = whole_pool(native, grid).clone()
        feature[2, 5] = value
        return feature

    monkeypatch.setattr(passes, "area_pool", spoil)
    monkeypatch.setattr(random, "shuffle", lambda numbers: None)
    with pytest.raises(CodecError) as caught:
        again(data, tmp_path / "feats", codec=codec)
    table = open_cache(tmp_path / "feats").table
    record, view = table.ids[table.record[2]], int(table.view[2])
    for part in ("dinov2-tiny-random/block", f"record {record}", f"view {view}", "channel 5", said):
        assert part in str(caught.value)
    assert not list((tmp_path / "feats/teachers/dinov2-tiny-random/ticks").glob("*"))


@pytest.mark.parametrize(
    ("workers", "taken"), [({}, "4 of 4 GPUs"), ({"workers": 2}, "2 of 4 GPUs"), ({"device": "cpu"}, "")]
)
def test_a_run_on_several_gpus_says_how_many_it_takes(
    workers: dict[str, Any], taken: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(run, "settle_device", lambda device: "cpu" if device == "cpu" else "cuda")
    monkeypatch.setattr(run, "count_gpus", lambda: 4)
    extract(data=data, cache=tmp_path / "feats", **SMALL | workers | {"quiet": False, "dry_run": True})
    said = capsys.readouterr().out
    assert (
        (f"{taken}, a process each; CUDA_VISIBLE_DEVICES or --workers takes fewer" in said)
        if taken
        else "GPUs" not in said
    )


@pytest.mark.parametrize("option", ["views", "input_size", "batch_size", "workers", "epochs", "runs"])
@pytest.mark.parametrize("number", [-3, 0])
def test_a_number_below_one_is_refused_before_anything_is_written(data: Path, tmp_path: Path, option: str, number: int):
    with pytest.raises(SettingsError, match=f"{option}={number}: must be at least 1"):
        extract(data=data, cache=tmp_path / "feats", **{**SMALL, option: number})
    assert not (tmp_path / "feats").exists()


def test_a_run_that_leaves_blocks_of_its_own_part_missing_says_so(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("difom_cache.extraction.compute.run_jobs", lambda jobs, executor: iter(()))
    report = extract(data=data, cache=tmp_path / "feats", **SMALL, part="1/2")
    assert sorted(report.left_blocks["teachers/dinov2-tiny-random"]) == [0, 2]  # every second of three blocks


def make_old(cache: Path) -> None:
    """Make a cache of random weights what difom once wrote: the teacher's name for a folder, no word on its weights."""
    folder = (cache / "teachers/dinov2-tiny-random").rename(cache / "teachers/dinov2")
    identity = json.loads((folder / "identity.json").read_text())
    assert identity["teacher"].pop("weights") == "random"
    (folder / "identity.json").write_bytes(canonical(identity))
    (folder / "source.json").unlink()


def test_an_old_cache_that_holds_the_asked_variant_with_equal_weights_is_continued(data: Path, feats: Path) -> None:
    make_old(feats)
    before = open_cache(feats).content_digests()
    withdraw_block(feats, open_cache(feats).column("teachers/dinov2"), 1)
    assert again(data, feats, dry_run=True).missing_blocks == {"pictures": 0, "teachers/dinov2": 1}
    assert again(data, feats).computed_blocks == {"teachers/dinov2": 1}
    assert open_cache(feats).content_digests() == before


def test_an_old_cache_with_other_weights_keeps_them_and_gets_a_folder_more(data: Path, feats: Path) -> None:
    make_old(feats)
    path = feats / "teachers/dinov2/identity.json"
    identity = json.loads(path.read_text())
    identity["teacher"]["weights_digest"] = "0" * 64
    path.write_bytes(canonical(identity))
    blocks_of_it = open_cache(feats).column("teachers/dinov2").blocks
    assert again(data, feats).computed_blocks == {"teachers/dinov2-tiny-random": blocks_of_it}
    assert list(open_cache(feats).teachers) == ["dinov2", "dinov2-tiny-random"]


def test_two_input_sizes_of_a_teacher_live_in_one_cache(data: Path, feats: Path, tmp_path: Path) -> None:
    before = open_cache(feats).content_digests()
    larger = SMALL | {"teacher": "dinov2:tiny@70"}
    report = extract(**larger, data=data, cache=feats)
    sized = "dinov2-tiny-70px-random"
    assert set(report.computed_blocks) == {f"teachers/{sized}"}
    assert {name: held.teacher.input_px for name, held in open_cache(feats).teachers.items()} == {
        "dinov2-tiny-random": 56,
        sized: 70,
    }
    after = open_cache(feats).content_digests()
    assert {name for name in after if after[name] != before.get(name)} == {f"teachers/{sized}", "cache"}
    assert not extract(**larger, data=data, cache=feats).computed_blocks and not again(data, feats).computed_blocks
    extract(
        data=paint_folder(tmp_path / "ward", 5),
        cache=tmp_path / "new",
        like=feats,
        teacher="dinov2:tiny@70",
        quiet=True,
    )
    assert list(open_cache(tmp_path / "new").teachers) == [sized], "as the other cache calls it"


@pytest.mark.parametrize(
    ("teacher", "weights", "label"),
    [
        *[("dinov2:small", "hub", "dinov2-small"), ("dinov2:small@616", "hub", "dinov2-small")],
        *[
            ("dinov2:small@112", "hub", "dinov2-small-112px"),
            ("sam@512", "hub", "sam-512px"),
            ("sam@1024", "hub", "sam"),
        ],
        ("dinov2:tiny@56", "random", "dinov2-tiny-random"),
    ],
)
def test_a_label_names_an_input_size_that_is_not_the_usual_one(teacher: str, weights: str, label: str) -> None:
    (request,) = request_teachers(ExtractConfig(teacher=(teacher,), weights=(weights,), input_size=64), "cpu")
    assert outline_teacher(request).label == label


def test_a_column_of_another_size_that_was_begun_under_the_short_label_is_continued(feats: Path) -> None:
    (request,) = request_teachers(ExtractConfig(teacher=("dinov2:tiny@56",), weights=("random",), input_size=64), "cpu")
    spec = outline_teacher(request)
    asked = replace(spec, label="dinov2-tiny-56px")  # as trained weights would be called
    (feats / "teachers/dinov2-tiny-random").rename(feats / "teachers/dinov2-tiny")
    assert find_begun(feats, asked).label == "dinov2-tiny"
    other = replace(asked, label="dinov2-tiny-70px", input_px=70)
    assert find_begun(feats, other).label == "dinov2-tiny-70px"
    usual = replace(other, label="dinov2-tiny")  # whose label a column of another size has
    assert (find_begun(feats, usual).label, find_begun(feats, usual).identity) == ("dinov2-tiny-70px", None)


@pytest.fixture(scope="module")
def view_bytes() -> dict[str, int]:
    """What `difom-cache teachers` says of the bytes that a view takes, by teacher."""
    entries = describe_teachers()
    defaults = {entry["teacher"].partition(":")[0]: entry["view_bytes"] for entry in entries if entry["default"]}
    return defaults | {entry["teacher"]: entry["view_bytes"] for entry in entries}


@pytest.mark.parametrize("teacher", ["sam", "dinov2:large", "oneformer"])
def test_a_dry_run_reads_no_weights_and_leaves_nothing_behind(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, teacher: str, view_bytes: dict[str, int]
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    report = extract(teacher=teacher, data=data, cache=tmp_path / "feats", dry_run=True, quiet=True)
    per_view = report.estimate.bytes_per_view
    features = sum(size for name, size in per_view.items() if not name.startswith("pictures"))
    assert features == view_bytes[teacher]
    assert sorted(tmp_path.iterdir()) in ([], [tmp_path / "hub"])


def test_a_dry_run_says_what_runs_the_network_where_it_is_named(data: Path, tmp_path: Path, capsys) -> None:
    version = pytest.importorskip("openvino").__version__.partition("-")[0]
    options = {"weights": "random", "data": data, "cache": tmp_path / "feats", "device": "cpu", "dry_run": True}
    extract(teacher="sam:tiny", backend="openvino", **options)
    assert f"OpenVINO {version} runs the network" in capsys.readouterr().out


def test_a_dry_run_refuses_what_the_teacher_cannot_take(data: Path, tmp_path: Path) -> None:
    with pytest.raises(TeacherError, match="multiples of 16 px, not 100"):
        extract(teacher="sam@100", data=data, cache=tmp_path / "feats", dry_run=True, quiet=True)


@pytest.mark.parametrize(("precision", "said"), [("bfloat16", 1), (None, 0)])
def test_a_precision_that_the_processor_emulates_is_one_line(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    precision: str | None,
    said: int,
) -> None:
    (tmp_path / "cpuinfo").write_text("model name\t: Old 5000\nflags\t: avx2\n")
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    options = SMALL | {"quiet": False, "dry_run": True, "device": "cpu", "precision": precision}
    extract(data=data, cache=tmp_path / "feats", **options)
    assert capsys.readouterr().out.count("NOTE: Old 5000 has no instructions for bfloat16") == said


def test_a_cpu_without_openvino_is_told_of_it(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    told = (
        "PyTorch runs the network; OpenVINO is faster on a CPU: run pip install '.[openvino]' in the project's checkout"
    )
    small = {"teacher": "sam:tiny", "weights": "random", "input_size": 64, "views": 1, "strides": (32,)}
    small |= {
        "data": paint_folder(tmp_path / "frames", frames=3),
        "device": "cpu",
        "backend": "torch",
        "codec": "float16",
    }
    monkeypatch.setattr(run, "has_openvino", lambda: True)
    extract(cache=tmp_path / "with", **small)
    assert told not in capsys.readouterr().out
    monkeypatch.setattr(run, "has_openvino", lambda: False)
    extract(cache=tmp_path / "without", **small)
    assert told in capsys.readouterr().out


def test_quiet_is_silent_however_long_anything_takes(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "FIRST_S", 0)
    assert extract(data=data, cache=tmp_path / "feats", **SMALL).computed_blocks
    assert capfd.readouterr() == ("", "")
