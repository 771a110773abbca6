"""`bench all` runs its parts one by one, keeps what ended well, and says what did not and why."""

import json
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import parts, suite
from benchmarks.options import AllConfig
from benchmarks.parts import FULL, SMALL, Part, count_tests, list_parts
from benchmarks.suite import bench_all, format_page
from difom_cache.base.errors import RunError, SettingsError

CPU = torch.device("cpu")


def run_parts(monkeypatch: pytest.MonkeyPatch, out: Path, *some: Part, **options: object) -> dict[str, dict]:
    monkeypatch.setattr(suite, "list_parts", lambda *_, **__: list(some))
    return bench_all(AllConfig(out=out, device="cpu", **options)).parts


def recipes(name: str, **more: object) -> Part:
    """Return a part that runs a real command."""
    return Part(name, ("difom-train", "recipes", "baseline"), lambda out: {"lines": out.count("\n")}, **more)


def test_what_ended_well_is_kept_and_what_did_not_runs_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = Part("broken", ("difom-train", "recipes", "no-such"), json.loads)
    after = recipes("after", needs=("broken",))
    found = run_parts(monkeypatch, tmp_path, recipes("fine"), broken, after)
    assert [part["outcome"] for part in found.values()] == ["done", "failed", "skipped"]
    assert found["fine"]["answer"]["lines"] > 20 and found["fine"]["command"] == ["difom-train", "recipes", "baseline"]
    assert "no-such" in found["broken"]["why"][-1] and found["after"]["why"] == ["needs broken"]
    assert json.loads((tmp_path / "bench.json").read_text())["parts"] == found

    ran: list[tuple[str, ...]] = []
    monkeypatch.setattr(suite, "_call", lambda command, _: ran.append(command) or ("done", "1\n", ""))
    mended = replace(broken, command=("difom-train", "recipes", "difom"), read=lambda out: {"lines": 1})
    found = run_parts(monkeypatch, tmp_path, recipes("fine"), mended, after)
    assert [command[-1] for command in ran] == ["difom", "baseline"]
    assert {part["outcome"] for part in found.values()} == {"done"}


def test_parts_stand_in_their_order_whichever_ran_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    some = (recipes("first"), recipes("second"), recipes("third"))
    run_parts(monkeypatch, tmp_path, *some, only=("third",))
    assert list(run_parts(monkeypatch, tmp_path, *some)) == ["first", "second", "third"]
    assert list(json.loads((tmp_path / "bench.json").read_text())["parts"]) == ["first", "second", "third"]


def test_a_part_that_takes_too_long_is_ended_with_all_that_it_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    script = f"sleep 2 && touch {mark} & sleep 60"
    monkeypatch.setitem(suite.PROGRAMS, "sh", ("sh",))
    began = time.perf_counter()
    found = run_parts(monkeypatch, tmp_path / "out", Part("slow", ("sh", "-c", script), json.loads), part_s=0.3)
    assert time.perf_counter() - began < 2
    assert (found["slow"]["outcome"], found["slow"]["why"]) == ("timed out", ["more than 0.3 s"])
    time.sleep(2.2)
    assert not mark.exists()


def test_an_answer_that_cannot_be_read_is_a_failure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = run_parts(monkeypatch, tmp_path, replace(recipes("odd"), read=json.loads))
    assert found["odd"]["outcome"] == "failed" and "its answer cannot be read" in found["odd"]["why"][0]


def test_results_of_another_machine_or_size_are_not_mixed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(suite, "_call", lambda *_: ("done", "", ""))
    run_parts(monkeypatch, tmp_path, recipes("fine"))
    with pytest.raises(SettingsError, match="another size or commit, with other versions or on another machine"):
        run_parts(monkeypatch, tmp_path, recipes("fine"), size="full")
    monkeypatch.setattr(suite, "find_commit", lambda: "another")
    with pytest.raises(SettingsError, match="another size or commit"):
        run_parts(monkeypatch, tmp_path, recipes("fine"))
    (tmp_path / "bench.json").write_text("[]")
    with pytest.raises(RunError, match=r"bench\.json"):
        run_parts(monkeypatch, tmp_path, recipes("fine"))


def test_the_commit_is_the_checkouts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def git(*words: str) -> str:
        call = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
        return subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=True).stdout.strip()

    monkeypatch.setattr(suite, "__file__", str(tmp_path / "suite.py"))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert suite.find_commit() == "unknown"
    (tmp_path / "suite.py").write_text("one\n")
    git("init"), git("add", "."), git("commit", "-m", "one"), git("tag", "-a", "v1", "-m", "one")
    assert suite.find_commit() == git("rev-parse", "--short=12", "HEAD")
    (tmp_path / "suite.py").write_text("two\n")
    assert suite.find_commit() == git("rev-parse", "--short=12", "HEAD") + "-dirty"


def test_an_unknown_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'reading'"):
        run_parts(monkeypatch, tmp_path, recipes("reading"), recipes("step"), only=("raeding",))


def test_every_teacher_is_a_part_and_sizes_differ_in_size_alone(tmp_path: Path) -> None:
    small = list_parts(tmp_path, SMALL, data=None, device=CPU, tests=tmp_path)
    full = list_parts(tmp_path, FULL, data=None, device=CPU, tests=tmp_path)
    names = [part.name for part in small]
    assert names == [part.name for part in full] and len(set(names)) == len(names)
    assert {"teacher/sam", "teacher/sam3", "teacher/radio", "teacher/dinov3_convnext"} <= set(names)
    worth = ["gpu-tests", "paint", "extract/sam", "extract/dinov2", "step", "run", "teacher/sam", "teacher/dinov2"]
    assert names[: len(worth)] == worth
    assert {"step/pranet", "step/compile", "step/disk"} <= set(names)
    assert FULL.bench_views >= 512 and 2 * FULL.frames >= 512  # so many that reading, network and writing overlap
    assert "dinov2:tiny" in next(part.command for part in small if part.name == "teacher/dinov2")
    assert "dinov2" in next(part.command for part in full if part.name == "teacher/dinov2")


def test_a_cpu_shows_every_backend_and_precision_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def kinds(device: str, *, openvino: bool, able: list[str]) -> tuple[str, ...]:
        monkeypatch.setattr(parts, "has_openvino", lambda: openvino)
        monkeypatch.setattr(parts, "cpu_capabilities", lambda: able)
        found = list_parts(tmp_path, SMALL, data=None, device=torch.device(device), tests=tmp_path)
        command = next(part.command for part in found if part.name == "teacher/sam")
        return command[command.index("--device") + 2 : -1]

    both = ("--backend", "torch,openvino", "--precision")
    assert kinds("cpu", openvino=True, able=["FP32", "BF16"]) == (*both, "float32,bfloat16")
    assert kinds("cpu", openvino=True, able=["FP32"]) == (*both, "float32")
    assert kinds("cpu", openvino=False, able=[]) == kinds("cuda", openvino=True, able=["BF16"]) == ()


def test_tests_of_a_gpu_are_run_where_there_is_one_and_tests_are(tmp_path: Path) -> None:
    def why(device: str, tests: Path) -> str:
        found = list_parts(tmp_path, SMALL, data=None, device=torch.device(device), tests=tests)
        return next(part.skip for part in found if part.name == "gpu-tests")

    assert why("cpu", tmp_path) == "no CUDA device"
    assert "name it with --tests" in why("cuda", tmp_path / "nowhere")
    assert why("cuda", tmp_path) == ""


def test_tests_are_counted_from_a_junit_file(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1"/><testsuite tests="2"/></testsuites>'
    )
    assert count_tests(report) == {"tests": 5, "failures": 1, "errors": 0, "skipped": 1}


def test_a_part_whose_output_is_gone_runs_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made, ran = tmp_path / "made", []

    def call(command: tuple[str, ...], _: float) -> tuple[str, str, str]:
        ran.append(command)
        made.mkdir()
        return "done", "1\n", ""

    monkeypatch.setattr(suite, "_call", call)
    paint = recipes("paint", makes=(made,))
    for _ in range(2):
        run_parts(monkeypatch, tmp_path / "out", paint)
    assert len(ran) == 1
    made.rmdir()
    run_parts(monkeypatch, tmp_path / "out", paint)
    assert len(ran) == 2


def test_a_traceback_is_kept_and_the_rest_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = Part("broken", ("python", "-c", "def deep(n): return deep(n - 1) if n else {}['key']\ndeep(5)"))
    found = run_parts(monkeypatch, tmp_path, broken, recipes("after"))
    assert [part["outcome"] for part in found.values()] == ["failed", "done"]
    kept = json.loads((tmp_path / "bench.json").read_text())["parts"]["broken"]["why"]
    assert kept[0].startswith("Traceback") and kept[-1] == "KeyError: 'key'"


def test_when_the_minutes_are_over_the_same_command_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    limits = []
    monkeypatch.setattr(
        suite, "_call", lambda _, limit_s: limits.append(limit_s) or time.sleep(0.1) or ("done", "", "")
    )
    some = (recipes("first"), recipes("second"))
    found = run_parts(monkeypatch, tmp_path, *some, minutes=0.1 / 60)
    assert 0 < limits[0] <= 0.1 and [part["outcome"] for part in found.values()] == ["done", "skipped"]
    assert "minutes are over" in found["second"]["why"][0]
    found = run_parts(monkeypatch, tmp_path, *some, minutes=8)
    assert len(limits) == 2 and limits[1] > 400 and {part["outcome"] for part in found.values()} == {"done"}


def test_the_page_shows_what_each_part_found_as_its_own_command_does(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ways = {
        way: {"images_per_s": speed, "network_images_per_s": 2 * speed, "peak_bytes": 2**30, "batch": 8}
        for way, speed in (("notebook", 1.0), ("library", 4.0), ("difom", 10.0))
    }
    ways["difom"]["cosine"] = 0.9999874
    teacher = {"teacher": "sam:vit_b@1024", "device": "H100", "threads": 1, "precision": "bfloat16", "batch": 8}
    teacher |= {"views": 64, "pictures": 1440, "flops_per_image": 4e11, "matmul_flops_per_s": 1e13, "ways": ways}
    reading = {"samples_per_s": {"memcpy": 20.0, "gather": 10.0}, "samples_per_cpu_s": {"memcpy": 20.0, "gather": 15.0}}
    reading |= {"sample_bytes": 10**8, "about": {"views": 3, "not_installed": []}, "ratios": {}, "cpu_ratios": {}}
    step = {"median_s": {"plain": 0.5, "hand-written": 0.25}, "cpu_s": {"plain": 1.0, "hand-written": 0.5}}
    step |= {"wait_frac": {}, "launches": {"plain": 335}, "about": {"hardware": {"gpu": "H100"}}, "ratios": {}}
    growth = {
        "records": [10, 100],
        "cpu_s": {"open": [1.0, 10.0]},
        "plan_digests": ["a", "b"],
        "exponents": {"open": 1.0},
    }
    printed = {"teacher/sam": teacher, "reading": reading, "step": step, "growth": growth}
    some = [
        part for part in list_parts(tmp_path, SMALL, data=tmp_path, device=CPU, tests=tmp_path) if part.name in printed
    ]
    answers = iter([json.dumps(printed[part.name]) for part in some])
    monkeypatch.setattr(suite, "_call", lambda *_: ("done", next(answers), ""))
    run_parts(monkeypatch, tmp_path / "out", *(replace(part, needs=()) for part in some))
    page = (tmp_path / "out" / "bench.md").read_text()
    assert "python -m benchmarks teacher --teacher sam:tiny" in page
    lines = {" ".join(line.split()) for line in page.splitlines()}
    assert "notebook 1.00 i/s 0.40 h 2.00 i/s 8 - 1.00 GiB" in lines
    assert "difom 10.00 i/s 0.04 h 20.00 i/s 8 0.999987 1.00 GiB" in lines
    assert "ours: 80% of that in the network, 50% of the network's speed from JPEG to bytes" in lines
    assert "memcpy 20.0 2.00 0.50 x 0.75 x" in lines and "plain 0.5000 1.0000 2.00 335" in lines
    assert "open 1.000 10.000 1.00" in lines and "no speeds" in page


def test_the_page_names_the_gpus_state_and_why_a_part_failed() -> None:
    none = {"command": [], "outcome": "done", "seconds": 61.0, "why": [], "answer": {}, "shown": ""}
    about = {"size": "full", "commit": "1a2b3c", "versions": {"difom": "1", "torch": "2"}, "hardware": {"gpu": "H100"}}
    about |= {"nvidia_smi": [{"name": "H100", "driver_version": "555"}]}
    failed = none | {"outcome": "failed", "why": ["Traceback", "KeyError: 'key'"]}
    page = format_page({"about": about, "parts": {"step": failed}})
    assert "H100; difom 1 (1a2b3c), torch 2; random weights." in page and "driver_version: 555" in page
    assert "no speeds" not in page and " ".join(page.split()).endswith("step failed 1 min 1 s KeyError: 'key' ```")


def test_epochs_are_read_from_the_log(tmp_path: Path) -> None:
    epoch = {"epoch": 0, "train_s": 2.5, "data_wait_frac": 0.125, "loss": 0.75, "val_dice": None, "lr": 0.1}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text(json.dumps(epoch) + "\n")
    run = next(
        part for part in list_parts(tmp_path, SMALL, data=None, device=CPU, tests=tmp_path) if part.name == "run"
    )
    assert "lr" not in run.read("")["epochs"][0]
    assert run.show(run.read("")).splitlines()[-1].split() == ["1", "2.50", "12.5%", "0.750", "-"]
