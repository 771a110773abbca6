"""`bench all` runs its parts one by one, keeps what ended well, and says what did not and why."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from difom_cache.errors import RunError, SettingsError
from difom_train.benchmarks import (
    FULL,
    SMALL,
    Part,
    bench_all,
    count_tests,
    format_suite,
    list_parts,
    suite,
    suite_parts,
)
from difom_train.commands import AllConfig

CPU = torch.device("cpu")


def run_parts(monkeypatch: pytest.MonkeyPatch, out: Path, *parts: Part, **options: object) -> dict[str, dict]:
    monkeypatch.setattr(suite, "list_parts", lambda *_, **__: list(parts))
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
    parts = (recipes("first"), recipes("second"), recipes("third"))
    run_parts(monkeypatch, tmp_path, *parts, only=("third",))
    assert list(run_parts(monkeypatch, tmp_path, *parts)) == ["first", "second", "third"]
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
    with pytest.raises(SettingsError, match="another size, with other versions or on another machine"):
        run_parts(monkeypatch, tmp_path, recipes("fine"), size="full")
    (tmp_path / "bench.json").write_text("[]")
    with pytest.raises(RunError, match=r"bench\.json"):
        run_parts(monkeypatch, tmp_path, recipes("fine"))


def test_an_unknown_part_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="did you mean 'reading'"):
        run_parts(monkeypatch, tmp_path, recipes("reading"), recipes("step"), only=("raeding",))


def test_every_teacher_is_a_part_and_sizes_differ_in_size_alone(tmp_path: Path) -> None:
    small = list_parts(tmp_path, SMALL, data=None, device=CPU, tests=tmp_path)
    full = list_parts(tmp_path, FULL, data=None, device=CPU, tests=tmp_path)
    names = [part.name for part in small]
    assert names == [part.name for part in full] and len(set(names)) == len(names)
    assert {"teacher/sam", "teacher/sam3", "teacher/radio", "teacher/dinov3_convnext"} <= set(names)
    assert names[-2:] == ["step", "run"]
    assert "dinov2:tiny" in next(part.command for part in small if part.name == "teacher/dinov2")
    assert "dinov2" in next(part.command for part in full if part.name == "teacher/dinov2")


def test_a_cpu_shows_every_backend_and_precision_that_it_has(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def kinds(device: str, *, openvino: bool, able: list[str]) -> tuple[str, ...]:
        monkeypatch.setattr(suite_parts, "has_openvino", lambda: openvino)
        monkeypatch.setattr(suite_parts, "cpu_capabilities", lambda: able)
        parts = list_parts(tmp_path, SMALL, data=None, device=torch.device(device), tests=tmp_path)
        command = next(part.command for part in parts if part.name == "teacher/sam")
        return command[command.index("--device") + 2 : -1]

    both = ("--backend", "torch,openvino", "--precision")
    assert kinds("cpu", openvino=True, able=["FP32", "BF16"]) == (*both, "float32,bfloat16")
    assert kinds("cpu", openvino=True, able=["FP32"]) == (*both, "float32")
    assert kinds("cpu", openvino=False, able=[]) == kinds("cuda", openvino=True, able=["BF16"]) == ()


def test_tests_of_a_gpu_are_run_where_there_is_one_and_tests_are(tmp_path: Path) -> None:
    def why(device: str, tests: Path) -> str:
        parts = list_parts(tmp_path, SMALL, data=None, device=torch.device(device), tests=tests)
        return next(part.skip for part in parts if part.name == "gpu-tests")

    assert why("cpu", tmp_path) == "no CUDA device"
    assert "name it with --tests" in why("cuda", tmp_path / "nowhere")
    assert why("cuda", tmp_path) == ""


def test_tests_are_counted_from_a_junit_file(tmp_path: Path) -> None:
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1"/><testsuite tests="2"/></testsuites>'
    )
    assert count_tests(report) == {"tests": 5, "failures": 1, "errors": 0, "skipped": 1}


def test_the_table_shows_what_each_part_found() -> None:
    ways = {
        way: {"images_per_s": speed, "network_images_per_s": 2 * speed, "peak_bytes": 2**30}
        for way, speed in (("notebook", 1.0), ("library", 4.0), ("difom", 10.0))
    }
    ways["difom"]["cosine"] = 0.9999874
    teacher = {"teacher": "sam:vit_b@1024", "precision": "bfloat16", "batch": 8, "ways": ways, "pictures": 1440}
    teacher |= {"flops_per_image": 4e11, "matmul_flops_per_s": 1e13}
    reading = {"samples_per_s": {"memcpy": 20.0, "gather": 10.0}, "ratios": {"memcpy": 0.5}, "sample_bytes": 10**8}
    reading |= {"cpu_ratios": {"memcpy": 0.75}}
    epoch = {"epoch": 0, "train_s": 2.5, "data_wait_frac": 0.125, "loss": 0.75, "val_dice": None}
    none = {"command": [], "outcome": "done", "seconds": 61.0, "why": []}
    parts = {
        "teacher/sam": none | {"answer": teacher},
        "reading": none | {"answer": reading},
        "run": none | {"answer": {"epochs": [epoch]}},
        "step": none | {"answer": {}, "outcome": "failed", "why": ["a | b"]},
    }
    about = {"size": "full", "versions": {"difom": "1", "torch": "2"}, "hardware": {"gpu": "H100"}}
    table = format_suite({"about": about, "parts": parts})
    assert "H100; difom 1, torch 2; random weights." in table
    assert "| sam:vit_b@1024 | notebook | 1.00 | 0.40 for 1440 | 2.00 |  |  | 1.00 |" in table
    assert "| sam:vit_b@1024 | difom | 10.00 | 0.04 for 1440 | 20.00 | 0.999987 | 80% | 1.00 |" in table
    assert "| memcpy | 20.0 | 2.00 | 0.50 x | 0.75 x |" in table and "| gather | 10.0 | 1.00 |  |  |" in table
    assert "| 1 | 2.50 | 12.5% | 0.750 | - |" in table
    assert "| step | failed | 1 min 1 s | a \\| b |" in table
    assert "A training step" not in table and "no speeds" not in table
    assert "no speeds" in format_suite({"about": about | {"size": "small"}, "parts": parts})
