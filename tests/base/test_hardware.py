"""One answer to each question about the machine, for both packages."""

from pathlib import Path

import pytest
import torch

from difom_cache.base import hardware
from difom_cache.base.hardware import (
    explain_bfloat16,
    explain_memory,
    name_device,
    name_processor,
    resolve_device,
    settle_device,
    torch_threads,
)
from difom_cache.errors import DeviceError
from difom_cache.teachers import TeacherRequest

CPUINFO = Path("/proc/cpuinfo")


@pytest.mark.parametrize("name", ["gpu", "cpux", "cuda:x", "meta", "mps", ""])
def test_what_is_no_device_is_refused_with_the_names_that_are(name: str) -> None:
    with pytest.raises(DeviceError, match=f"there is no device '{name}'; use auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_a_device_that_is_absent_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="--device cpu"):
        resolve_device("cuda")
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")


def test_auto_is_the_gpu_where_there_is_one_and_a_number_beyond_the_last_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(DeviceError, match="has 2 CUDA devices, from cuda:0"):
        resolve_device("cuda:2")


def test_without_a_driver_auto_is_the_cpu_and_pytorch_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(hardware, "resolve_device", lambda device: asked.append(device) or torch.device("cuda:1"))
    monkeypatch.setattr(hardware, "has_driver", lambda: False)
    assert settle_device("auto") == settle_device("cpu") == "cpu" and asked == []
    assert settle_device("cuda") == "cuda:1"  # what is named is looked for, driver or not
    monkeypatch.setattr(hardware, "has_driver", lambda: True)
    assert settle_device("auto") == "cuda:1" and asked == ["cuda", "auto"]


@pytest.mark.skipif(not CPUINFO.exists(), reason="only Linux says its processor in /proc/cpuinfo")
def test_the_processor_has_the_name_that_the_system_says() -> None:
    lines = CPUINFO.read_text().splitlines()
    names = {line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")}
    if names:
        assert name_processor() in names
    assert name_device(torch.device("cpu")) == name_processor() != ""


@pytest.mark.parametrize(
    ("flags", "emulates"),
    [
        ("flags\t\t: fpu sse2 avx2 avx512f avx512_bf16", False),
        ("flags\t\t: fpu avx2 amx_bf16 amx_tile", False),
        ("Features\t: fp asimd bf16 i8mm", False),
        ("flags\t\t: fpu sse2 avx2 avx512f", True),
        ("bogomips\t: 4400.00", False),
    ],
)
def test_bfloat16_is_said_to_be_slow_where_the_processor_emulates_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, flags: str, emulates: bool
) -> None:
    (tmp_path / "cpuinfo").write_text(f"model name\t: Old 5000\n{flags}\n")
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    line = explain_bfloat16(torch.device("cpu"))
    assert ("Old 5000 has no instructions for bfloat16" in line) == emulates == bool(line)
    assert explain_bfloat16(torch.device("cuda")) == ""


def test_threads_are_as_before_after_the_block_even_if_it_fails() -> None:
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="no"), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise ValueError("no")
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("capability", "emulates"), [((7, 0), True), ((7, 5), True), ((8, 0), False), ((12, 0), False)]
)
def test_a_gpu_before_ampere_computes_in_float32_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], emulates: bool
) -> None:
    """NVIDIA's table of features by compute capability has bfloat16 from 8.0 on: V100 is 7.0, T4 and RTX 2080 are 7.5."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "Tesla T4")
    assert TeacherRequest(device="cuda").chosen_precision == ("float32" if emulates else "bfloat16")
    assert TeacherRequest(device="cuda", precision="bfloat16").chosen_precision == "bfloat16"
    assert ("Tesla T4 has no instructions for bfloat16" in explain_bfloat16(torch.device("cuda"))) == emulates


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    ],
)
def test_a_full_gpu_is_one_line_with_the_way_out(error: RuntimeError) -> None:
    with (
        pytest.raises(DeviceError, match=r"ran out of memory: CUDA .* --batch-size") as caught,
        explain_memory("--batch-size"),
    ):
        raise error
    assert "\n" not in str(caught.value)
    with pytest.raises(RuntimeError, match=r"^shape$"), explain_memory("--batch-size"):
        raise RuntimeError("shape")
