"""Training asks a file system for next to nothing: shard files once at the start, no name in an epoch, whatever the views."""

import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from painted_folder import paint_folder

from difom_cache import extract

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed"),
]
CALLS = "open,openat,openat2,stat,lstat,newfstatat,statx,access,faccessat,faccessat2"
OPTIONS = (
    "--student unet --width 2 --input-size 32 --batch-size 4 --device cpu --recipe difom --set machine.logger=none"
)
PROCESSES = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=30)


def fill(data: Path, cache: Path, views: int) -> Path:
    extract(teacher="dinov2:tiny@56", weights="random", data=data, cache=cache, views=views, input_size=64, quiet=True)
    return cache


def count_calls(cache: Path, run: Path, epochs: int) -> Counter[str]:
    """Return how often two processes together asked for each path in the cache while they trained."""
    log = run.with_suffix(".strace")
    trace = ["strace", "-f", "--seccomp-bpf", "-qq", "-e", f"trace={CALLS}", "-o", str(log)]
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        f"--nproc-per-node={PROCESSES}",
        "--no-python",
    ]
    command = [str(Path(sys.executable).with_name("difom-train")), *OPTIONS.split()]
    where = ["--cache", str(cache), "--out", str(run), "--epochs", str(epochs)]
    subprocess.run([*trace, *launch, *command, *where], check=True, capture_output=True)
    asked = re.findall(rf'"({re.escape(str(cache))}[^"]*)"', log.read_text(errors="replace"))
    return Counter(path.removeprefix(str(cache)) for path in asked)


def shards_of(calls: Counter[str]) -> dict[str, int]:
    """Return the calls that ask for a shard file; the table of rows is a few plain chunks that zarr-python reads."""
    return {path: count for path, count in calls.items() if "/c." in path and not path.startswith("/rows/")}


def test_epochs_after_the_first_ask_for_no_file(data: Path, tmp_path: Path) -> None:
    cache = fill(data, tmp_path / "feats", 3)
    calls = {epochs: count_calls(cache, tmp_path / f"run{epochs}", epochs) for epochs in (1, 4)}
    assert sum(calls[1].values()) > 0
    assert calls[4] == calls[1]
    shards = shards_of(calls[1])
    assert shards
    assert max(shards.values()) <= 2 * PROCESSES, shards  # two for each process


def test_more_views_ask_for_no_more_than_their_shards(data: Path, tmp_path: Path) -> None:
    few, many = (count_calls(fill(data, tmp_path / f"feats{v}", v), tmp_path / f"run{v}", 2) for v in (2, 8))

    def beside_shards(calls: Counter[str]) -> int:
        return sum(count for path, count in calls.items() if "/c." not in path and "/ticks/" not in path)

    assert beside_shards(many) == beside_shards(few)
    assert max(shards_of(many).values()) <= 2 * PROCESSES
