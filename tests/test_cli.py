"""`difom-cache` as a user meets it: an answer, or one line and exit code 2."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from painted_folder import paint_folder
from small_cache import write_small_cache

from difom_cache import Cache
from difom_cache.cli import main as cache_main
from difom_train.cli import main

SMALL = ("--weights", "random", "--input-size", 64, "--views", 2)


def test_extract_then_info_show_finish_and_verify(run, tmp_path: Path):
    data, cache = paint_folder(tmp_path / "data", frames=9), tmp_path / "feats"
    assert run("extract", "--teacher", "dinov2:tiny@56", "--data", data, "--cache", cache, *SMALL)[0] == 0
    code, out, _ = run("info", cache, "--json")
    assert code == 0
    assert json.loads(out)["columns"]["teachers/dinov2-tiny-random"]["finished_blocks"] > 0
    assert run("show", cache, "--out", tmp_path / "view.png")[0] == 0
    assert (tmp_path / "view.png").read_bytes().startswith(b"\x89PNG")
    assert run("finish", cache)[:2] == (0, "pictures: complete\nteachers/dinov2-tiny-random: complete\n")
    code, out, _ = run("verify", cache, "--json")
    assert (code, json.loads(out)["sound"]) == (0, True)


def test_a_dry_run_estimates_and_writes_nothing(run, tmp_path: Path):
    data, cache = paint_folder(tmp_path / "data", frames=9), tmp_path / "feats"
    code, out, _ = run(
        "extract", "--teacher", "dinov2:tiny@56", "--data", data, "--cache", cache, *SMALL, "--dry-run", "--epochs", 3
    )
    assert code == 0
    assert "teacher passes saved: 3 epochs x 1 run / 2 views = 1.5" in out
    assert "pictures/image" in out
    assert "teachers/dinov2-tiny-random: sees views at 56 px; --dry-run --measure says how long a view takes" in out
    assert not cache.exists()


def test_a_dry_run_that_measures_says_seconds_and_memory_and_writes_nothing(run, tmp_path: Path):
    data, cache = paint_folder(tmp_path / "data", frames=9), tmp_path / "feats"
    words = ("extract", "--teacher", "dinov2:tiny@56", "--data", data, "--cache", cache, *SMALL)
    code, out, _ = run(*words, "--dry-run", "--measure", "--batch-size", 4)
    found = re.search(
        r": (\S+) s a view in batches of 4 on cpu, so about .+ for (\d+) views; (\d+\.\d) [MG]B of memory\n", out
    )
    assert (
        code == 0 and found and 0 < float(found[1]) < 10 and int(found[2]) == int(re.search(r"(\d+) views, ", out)[1])
    )
    assert not cache.exists()
    code, _, err = run(*words, "--measure")
    assert code == 2 and "--measure goes with --dry-run" in err and not cache.exists()


@pytest.mark.parametrize("precision", ["foo", "float16"])
def test_a_precision_that_no_teacher_computes_in_is_one_line_and_leaves_no_cache(run, tmp_path: Path, precision: str):
    data, cache = paint_folder(tmp_path / "data", frames=2), tmp_path / "feats"
    code, _, err = run(
        "extract", "--teacher", "dinov2:tiny@56", "--data", data, "--cache", cache, *SMALL, "--precision", precision
    )
    assert code == 2
    assert err.startswith(f"error: --precision {precision}: must be one of float32, bfloat16") and err.count("\n") == 1
    assert not cache.exists()


def test_verify_and_finish_exit_with_1_where_something_is_wrong(run, tmp_path: Path):
    part = write_small_cache(tmp_path / "part", leave_out=(0,)).path
    assert run("finish", part)[:2] == (1, "pictures: complete\nteachers/one: 1 blocks missing\n")
    assert run("verify", part)[0] == 0  # what is not there yet is no damage
    (part / "rows/split/c.0").write_bytes(bytes(14))
    assert run("verify", part)[0] == 1
    assert run("verify", part, "--repair")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["info", "nowhere"], "nowhere is not a cache"),
        (["extract", "--teacher", "dinov3x"], "data"),
        (["extract", "--teacher", "sam", "--strides", "8,x"], "--strides x: must be a whole number, in [1, 16384]"),
        (["extract", "--teachr", "sam"], "No such option: --teachr"),
        (["extract"], "--teacher is missing: name one, or --like a cache that has some"),
        (["extract", "--teacher", "sam", "--batch-size", "-3"], "--batch-size -3: must be at least 1"),
        (["extract", "--teacher", "sam", "--input-size", "0"], "--input-size 0: must be at least 1"),
        (["extract", "--teacher", "sam", "--workers", "-1"], "--workers -1: must be at least 1"),
        (["extract", "--teacher", "sam", "--views", "0"], "--views 0: must be at least 1"),
        (["extract", "--teacher", "sam", "--views", f"{10**20 - 1}"], f"--views {10**20 - 1}: must be at most 10000"),
        (
            ["extract", "--teacher", "sam", "--codec", "int7"],
            "must be one of int8, float16, compact, packed; did you mean 'int8'?",
        ),
        (["extract", "--teacher", "sam", "--part", "9/8"], "--part: expected I/N with 1 <= I <= N"),
        (["import", "nothing.h5", "feats"], "nothing.h5"),
        (["drop", "nowhere", "--teacher", "sam"], "nowhere is not a cache"),
        (["info", ""], "an argument is empty"),
        (["info", "fe\0ats"], "an argument holds a zero byte"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, monkeypatch, tmp_path: Path, arguments, line):
    monkeypatch.chdir(tmp_path)
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert line in err


def test_no_cuda_is_one_line_that_names_the_way_out(run, tmp_path: Path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    data = paint_folder(tmp_path / "data", frames=4)
    code, _, err = run("extract", "--teacher", "dinov2:tiny", "--data", data, "--device", "cuda", *SMALL)
    assert code == 2
    assert "--device cpu" in err


def test_ctrl_c_says_how_to_go_on(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Cache, "__init__", interrupt)
    code, _, err = run("info", tmp_path)
    assert code == 130
    assert "run the same command again" in err


@pytest.mark.parametrize(
    ("called", "arguments", "words"),
    [
        (
            "difom_train.training.run.train",
            ("--cache", "feats"),
            "the same command with --resume resumes after the last finished epoch",
        ),
        ("benchmarks.suite.bench_all", ("bench", "all"), "the same command resumes where it stopped"),
        ("benchmarks.growth.bench_growth", ("bench", "growth"), "run the same command again"),
    ],
)
def test_ctrl_c_says_what_this_command_can_do(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    called: str,
    arguments: tuple[str, ...],
    words: str,
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(called, interrupt)
    monkeypatch.setattr("sys.argv", ["difom-train", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == f"interrupted; {words}\n"


@pytest.mark.parametrize(
    ("program", "words"), [(main, ("step", "--steps", "3")), (cache_main, ("teacher", "--steps", "3"))]
)
def test_bench_hands_its_words_to_the_benchmarks_of_the_checkout_and_elsewhere_says_where_they_are(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    program: Callable[[], None],
    words: tuple[str, ...],
):
    seen: list[list[str]] = []
    monkeypatch.setattr("benchmarks.cli.main", lambda: seen.append(sys.argv))
    typed = words[words[0] == "teacher" :]
    monkeypatch.setattr("sys.argv", ["it", "bench", *typed])
    monkeypatch.setattr("sys.path", list(sys.path))
    with pytest.raises(SystemExit) as ended:
        program()
    assert ended.value.code == 0 and seen == [["python -m benchmarks", *words]]

    monkeypatch.setattr("sys.argv", ["it", "bench", *typed])
    away = tmp_path / "site-packages" / "difom_cache" / "base" / "console.py"
    monkeypatch.setattr("difom_cache.base.console.__file__", str(away))
    with pytest.raises(SystemExit) as ended:
        program()
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1 and f"`python -m benchmarks {' '.join(words)}`" in err


def test_sample_and_manifest(run, tmp_path: Path):
    assert run("sample", tmp_path / "data", "--train", 4, "--test", 1, "--side", 64)[0] == 0
    code, out, _ = run("manifest", tmp_path / "data", "--out", tmp_path / "m.csv", "--json")
    assert code == 0
    assert sum(json.loads(out).values()) == 4 + 5
    assert (tmp_path / "m.csv").exists()


def test_a_leak_across_splits_or_data_sets_ends_in_1_unless_it_is_known(run, tmp_path: Path):
    for name in ("train", "test"):
        paint_folder(tmp_path / "one" / name, frames=2)
    code, out, err = run("manifest", tmp_path / "one", "--check")
    assert code == 1 and "pairs across splits: 2" in out and "--allow-leaks" in err
    assert run("manifest", tmp_path / "one", "--check", "--allow-leaks")[0] == 0
    assert run("manifest", tmp_path / "one" / "train", "--check")[0] == 0
    code, out, _ = run("manifest", tmp_path / "one" / "train", tmp_path / "one" / "test", "--check")
    assert code == 1 and "pairs across splits: 2" in out
