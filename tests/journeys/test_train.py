"""From painted pictures through a real cache to a trained student, by the commands that a user types."""

import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from painted_folder import paint_folder

import benchmarks.cli
from benchmarks.step import bench_step
from difom_cache import ViewParams, build_teacher, extract, load_records, open_cache, probe, read_image, replay_image
from difom_cache.errors import SettingsError
from difom_cache.teachers import area_pool
from difom_cache.views import warp_view
from difom_train import evaluate, load_student, train
from difom_train.cli import PROGRAM
from difom_train.config import change_config, read_recipe
from difom_train.data import Batch, DataTimer, JointCache
from difom_train.training import (
    Trainer,
    build_learner,
    choose_rows,
    open_feed,
    open_processes,
    read_checkpoint,
    read_log,
    read_run,
    set_mode,
)

pytestmark = pytest.mark.journey

TEACHER, SIDE = "dinov2:tiny@56", 64
PLAIN = ["machine.logger=none"]
TINY = {"width": 4, "input_size": 32, "batch_size": 4, "epochs": 2, "device": "cpu", "changes": PLAIN}
COMMAND = [sys.executable, "-c", "from difom_train.cli import main; main()"]
SHAPE = ["--student", "unet", "--width", 4, "--input-size", 32, "--device", "cpu", "--set", *PLAIN]
OPTIONS = [*SHAPE, "--batch-size", 4]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return paint_folder(tmp_path_factory.mktemp("data"), frames=30)


@pytest.fixture(scope="module")
def cache(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("caches") / "feats"
    options = {"views": 3, "input_size": SIDE, "codec": "float16", "device": "cpu", "quiet": True}
    extract(teacher=TEACHER, weights="random", data=data, cache=path, **options)
    return path


def run_command(*arguments, launcher=(), **options):
    command = [*(launcher or COMMAND), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=900, **options)


def assert_equal(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_command_trains_a_student_that_scores(cache, data, tmp_path):
    done = run_command(*OPTIONS, "--cache", cache, "--recipe", "difom", "--epochs", 3, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "records with masks" in done.stderr and "stage: disk" in done.stderr
    assert [line["epoch"] for line in read_log(tmp_path / "run")] == [0, 1, 2]
    assert read_run(tmp_path / "run")["cache_digests"][0].keys() == {"pictures", "teachers/dinov2-tiny-random"}
    assert load_student(tmp_path / "run")(torch.rand(1, 3, 32, 32)).shape == (1, 1, 32, 32)
    assert evaluate(tmp_path / "run", data, limit=2, workers=0).means()


def test_wrong_name_is_one_line_and_exit_code_two(cache, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["difom-train", "--student", "unett", "--cache", str(cache)])
    with pytest.raises(SystemExit) as ended:
        PROGRAM.main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "unett" in said and "unet" in said and "Traceback" not in said


def test_killed_run_resumes_to_the_same_weights(cache, tmp_path):
    options = [*OPTIONS, "--cache", cache, "--recipe", "difom-multiscale", "--epochs", 6]
    train("unet", cache=cache, recipe="difom-multiscale", out=tmp_path / "whole", **TINY | {"epochs": 6})
    killed = tmp_path / "killed"
    process = subprocess.Popen(
        [*COMMAND, *map(str, options), "--out", killed],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while len(read_log(killed)) < 2 and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = run_command(*options, "--out", killed, "--resume")
    assert done.returncode == 0, done.stderr
    assert_equal(read_checkpoint(tmp_path / "whole")[1]["learner"], read_checkpoint(killed)[1]["learner"])


def test_cache_without_pictures_trains_to_the_same_weights_from_the_data(data, cache, tmp_path):
    bare = tmp_path / "bare"
    options = {"views": 3, "input_size": SIDE, "codec": "float16", "device": "cpu", "quiet": True}
    extract(teacher=TEACHER, weights="random", data=data, cache=bare, pictures=False, **options)
    own = TINY | {"fresh_views": False}
    with pytest.raises(SettingsError, match="the cache holds no images: say where they lie with --data"):
        train("unet", cache=bare, recipe="difom", out=tmp_path / "none", **own)
    (stored,) = train("unet", cache=cache, recipe="difom", out=tmp_path / "stored", **own)
    (rendered,) = train("unet", cache=bare, recipe="difom", out=tmp_path / "rendered", data=data, **own)
    assert_equal(load_student(stored).state_dict(), load_student(rendered).state_dict())


def test_fresh_views_differ_from_epoch_to_epoch(data, cache, tmp_path):
    """From files, from the stored view 0, and the stored views: three losses of one seed, the first two near each other."""
    losses = []
    for name, more in {
        "files": {"data": data},
        "view0": {},
        "stored": {"fresh_views": False},
    }.items():
        (run,) = train("unet", cache=cache, recipe="baseline", out=tmp_path / name, **TINY, **more)
        losses.append(read_log(run)[0]["loss"])
    files, view0, stored = losses
    assert abs(files - view0) < 0.05 * files and len({files, view0, stored}) == 3


def test_fresh_views_are_learnt_from_view_zero_and_stand_beside_stored_ones(data, cache, tmp_path):
    changes = [*PLAIN, "student.name=unet", "student.width=4", f"data.input_px={SIDE}", "data.batch_size=8"]
    config = change_config(read_recipe("difom-multiscale"), [*changes, "data.labels=0.5", f"run.data={data}"])
    joint, processes = (
        JointCache([open_cache(cache)]),
        open_processes(torch.device("cpu"), "float32"),
    )
    taps = build_learner(config, joint, pretrained=False).distiller.taps
    feed = open_feed(config, joint, processes, choose_rows(config, joint, taps), taps)
    shown = set()
    for epoch in (0, 1):
        for step, batch in enumerate(feed.train_batches(epoch, taps, distils=True, timer=DataTimer())):
            stored = joint.gather(batch.rows, taps)
            for place, fresh in enumerate(batch.fresh):
                mask, whole = batch.tensors["mask"][place], torch.from_numpy(stored["mask"][place])
                if fresh is None:
                    assert (step + place) % 2 == 1 and torch.equal(mask, whole)
                    continue
                assert (step + place) % 2 == 0 and joint.view[batch.rows[place]] == 0
                shown.add(tuple(fresh[0].to_row()))
                warped = warp_view(whole[None, None].float(), [fresh[0]], [fresh[1]])[0, 0] >= 0.5
                inside = batch.tensors["valid"][place] > 0
                assert ((mask > 0) == warped)[inside].float().mean() > 0.97
            for tap in taps:
                assert torch.equal(batch.tensors[f"{tap}/code"], torch.from_numpy(stored[f"{tap}/code"]))
    assert len(shown) > feed.steps * 4  # other views in the second epoch


def test_fresh_views_are_trained_with_features_and_a_probes_logits(data, cache, tmp_path):
    feats = tmp_path / "feats"
    shutil.copytree(cache, feats)
    probe(cache=feats, teachers="dinov2-tiny-random", quiet=True)
    (run,) = train("unet", cache=feats, recipe="difom-multiscale", out=tmp_path / "run", data=data, labels=0.5, **TINY)
    line = read_log(run)[-1]
    assert line["feature"] > 0 and line["logits"] > 0 and "probe" in str(read_run(run)["taps"])


def test_two_caches_train_one_student(data, cache, tmp_path):
    more = paint_folder(tmp_path / "more", frames=12, width=56)
    options = {"views": 2, "input_size": SIDE, "codec": "float16", "device": "cpu", "quiet": True}
    extract(teacher=TEACHER, weights="random", data=more, cache=tmp_path / "second", **options)
    (run,) = train("unet", cache=[cache, tmp_path / "second"], recipe="difom", out=tmp_path / "run", **TINY)
    alone = len(open_cache(cache).rows_of("train")) // 3
    assert read_run(run)["rows"]["labelled_records"] > alone
    assert len(read_run(run)["cache_digests"]) == 2


def test_torchrun_trains_by_the_same_command_the_very_steps_of_one_process_that_accumulates(cache, tmp_path):
    """Two processes with batches of 14, and one that accumulates two batches of 14; a line of the log is a step."""
    command = str(Path(sys.executable).with_name("difom-train"))
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
        command,
    ]
    options = [*SHAPE, "--batch-size", 14, "--set", "distill.gradient_share=0", "--recipe", "difom", "--epochs", 4]
    done = run_command(*options, "--cache", cache, "--out", tmp_path / "two", launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    changes = [*PLAIN, "distill.gradient_share=0", "data.accumulate=2"]
    own = TINY | {"epochs": 4, "batch_size": 14, "changes": changes}
    (one,) = train("unet", cache=cache, recipe="difom", out=tmp_path / "one", **own)
    facts = read_run(tmp_path / "two")
    assert (facts["hardware"]["processes"], facts["pictures_per_step"], facts["steps_per_epoch"]) == (2, 28, 1)
    for line, other in zip(read_log(tmp_path / "two"), read_log(one), strict=True):
        for name in ("loss", "segmentation", "whole"):
            assert line[name] == pytest.approx(other[name], rel=1e-5)
        assert line["distill/gradient_share"] == pytest.approx(other["distill/gradient_share"], rel=1e-3)
    learners = [read_checkpoint(run)[1]["learner"] for run in (tmp_path / "two", one)]
    statistics = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm: each process keeps its own
    for name in [name for name in learners[0] if not name.endswith(statistics)]:
        torch.testing.assert_close(learners[0][name], learners[1][name], rtol=1e-3, atol=1e-4)


class LiveCache(JointCache):
    """A cache whose targets may also arrive as float32 features, straight from a teacher."""

    def decode(self, tap, code, scale=None):
        return code if code.dtype == torch.float32 else super().decode(tap, code, scale)


def test_fifty_steps_with_the_teacher_in_the_loop_equal_fifty_from_the_cache(data, cache, tmp_path):
    # Batches large enough and a learning rate small enough that steps do not magnify rounding: with the recipe's rate a
    # change of the first weights by 1e-7 moves losses by 4e-4, and with batches of 4 at 32 px by 6e-3.
    changes = [
        *PLAIN,
        "student.name=unet",
        "student.width=8",
        f"data.input_px={SIDE}",
        "data.batch_size=16",
        "optimizer.lr=1e-4",
        "distill.gradient_share=0",  # weights that follow the gradients magnify rounding as well
    ]
    config = change_config(read_recipe("difom"), changes)
    processes = open_processes(torch.device("cpu"), "float32")
    teacher = build_teacher(TEACHER, weights="random", device="cpu", picture_px=SIDE)
    records = {record.id: record for record in load_records(data)}

    def live_batch(joint, batch):
        rows = zip(joint.record_ids(batch.rows), joint.params(batch.rows), strict=True)
        pixels = [
            replay_image(
                torch.from_numpy(np.ascontiguousarray(read_image(records[name].image).transpose(2, 0, 1))),
                ViewParams.from_row(numbers),
                teacher.spec.input_px,
            )
            for name, numbers in rows
        ]
        with torch.inference_mode():
            features = teacher.features(torch.stack(pixels))
            pooled = {
                f"{teacher.spec.label}/{tap.name}/code": area_pool(features[tap.native], tap.grid(SIDE)).float()
                for tap in teacher.spec.taps
            }
        return Batch(batch.rows, batch.tensors | {key: value.clone() for key, value in pooled.items()}, batch.fresh)

    losses = {}
    for name in ("cached", "live"):
        joint = LiveCache([open_cache(cache)])
        learner = build_learner(config, joint, pretrained=False)
        taps = learner.distiller.taps
        feed = open_feed(config, joint, processes, choose_rows(config, joint, taps), taps)
        trainer = Trainer(config, processes, learner, feed, tmp_path)
        trainer.phase = config.phases[0]
        set_mode(learner.student, freeze_encoder=False)
        losses[name] = []
        while len(losses[name]) < 50:
            epoch, step = divmod(len(losses[name]), feed.steps)
            if step == 0:
                stored = feed.train_batches(epoch, taps, distils=True, timer=DataTimer())
                batches = stored if name == "cached" else (live_batch(joint, each) for each in stored)
            taken, _ = trainer.train_step(batches, epoch, step)
            losses[name].append(float(taken["loss"]))
    np.testing.assert_allclose(losses["cached"], losses["live"], rtol=1e-3)


def test_bench_step_times_every_lane(cache):
    words = ["step", "--cache", cache, "--student", "unet", "--width", 4, "--input-size", 32, "--batch-size", 4]
    words += ["--steps", 2, "--teacher", TEACHER, "--teacher-steps", 1, "--device", "cpu", "--json"]
    _, command, rest = benchmarks.cli.PROGRAM.find(list(map(str, words)))
    answer = bench_step(command.read(rest)).as_json()
    assert answer["median_s"].keys() == {
        "hand-written",
        "plain",
        "plain, with data",
        "cached",
        "cached, with data",
        "teacher in the loop",
    }
    assert all(0 <= share <= 1 for share in answer["wait_frac"].values())
    assert answer["ratios"] == {lane: each / answer["cpu_s"]["hand-written"] for lane, each in answer["cpu_s"].items()}
    assert answer["ratios"]["hand-written"] == 1 and all(each > 0 for each in answer["cpu_s"].values())


def test_train_is_a_function_of_the_package():
    assert import_module(train.__module__).train is train
    assert Path(train.__code__.co_filename).name == "run.py"
