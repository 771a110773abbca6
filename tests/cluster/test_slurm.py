"""A real Slurm on this machine fills a cache: as an engine, as a plain array, and over jobs that are cut off."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from painted_folder import paint_folder
from stand_ins import save_weights

from difom_cache import extract, open_cache

SCRIPT = Path(__file__).with_name("slurm.sh")
COMMAND = Path(sys.executable).with_name("difom-cache")
MISSING = [
    name
    for name in ("munged", "slurmctld", "slurmd", "sbatch")
    if not shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"no Slurm here: {', '.join(MISSING)} not installed"),
]
TEACHER = "dinov2:tiny@56"
VIEWS = 8
LONG_VIEWS = 1200  # minutes of work, where Slurm's shortest time limit is a minute


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment in which commands reach a Slurm of sixteen CPUs and two GPUs, or so it is told."""
    folder = tmp_path_factory.mktemp("slurm")
    subprocess.run([SCRIPT, "start", folder, "16"], check=True)
    yield os.environ | {"SLURM_CONF": str(folder / "slurm.conf")}
    subprocess.run([SCRIPT, "stop", folder], check=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return paint_folder(tmp_path_factory.mktemp("data"), frames=24)


def digests_of_one_process(data: Path, cache: Path, views: int) -> dict[str, str]:
    extract(teacher=TEACHER, weights="random", data=data, cache=cache, input_size=64, views=views, quiet=True)
    return open_cache(cache).content_digests()


def format_command(data: Path, cache: Path, views: int, *more: str) -> list[str]:
    options = f"--teacher {TEACHER} --weights random --input-size 64 --views {views}".split()
    return [str(COMMAND), "extract", *options, "--data", str(data), "--cache", str(cache), *more]


def submit(slurm: dict[str, str], folder: Path, line: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Return what `sbatch --wait` answered once the job, or every job of the array, has ended."""
    script = folder / "job.sh"
    script.write_text(f"#!/bin/bash\nexport OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '2')}\n{line}\n")
    command = ["sbatch", "--wait", "--output", str(folder / "%A-%a.log"), *options, str(script)]
    return subprocess.run(command, env=slurm, capture_output=True, text=True, check=False)


def test_slurm_engine_fills_a_cache_with_the_bytes_of_one_process(
    slurm: dict[str, str], data: Path, tmp_path: Path
) -> None:
    jobs = tmp_path / "jobs.toml"
    jobs.write_text(
        f'cores = 1\nmemory = "2GB"\nwalltime = "00:10:00"\nlog_directory = "{tmp_path}"\ninterface = "lo"\n'
        f'local_directory = "{tmp_path}"\npython = "{sys.executable}"\n'
    )
    command = format_command(
        data, tmp_path / "feats", VIEWS, "--engine", "slurm", "--workers", "2", "--jobs", str(jobs)
    )
    done = subprocess.run(command, env=slurm, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = digests_of_one_process(data, tmp_path / "one", VIEWS)
    assert open_cache(tmp_path / "feats").content_digests() == expected


def test_parts_of_an_array_fill_one_cache(slurm: dict[str, str], data: Path, tmp_path: Path) -> None:
    line = " ".join(format_command(data, tmp_path / "feats", VIEWS, "--part", "$SLURM_ARRAY_TASK_ID/3"))
    done = submit(slurm, tmp_path, line, "--array", "1-3")
    assert done.returncode == 0, "\n".join(log.read_text() for log in tmp_path.glob("*.log"))
    finished = subprocess.run([COMMAND, "finish", tmp_path / "feats"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    expected = digests_of_one_process(data, tmp_path / "one", VIEWS)
    assert open_cache(tmp_path / "feats").content_digests() == expected


def test_job_that_its_time_limit_cut_off_goes_on_when_it_is_submitted_again(
    slurm: dict[str, str], data: Path, tmp_path: Path
) -> None:
    line = " ".join(format_command(data, tmp_path / "feats", LONG_VIEWS))
    cut_off = 0
    while submit(slurm, tmp_path, line, "--time", "1").returncode != 0:
        logs = "\n".join(log.read_text() for log in tmp_path.glob("*.log"))
        assert "DUE TO TIME LIMIT" in logs, logs
        cut_off += 1
        assert cut_off < 20
    assert cut_off > 0
    expected = digests_of_one_process(data, tmp_path / "one", LONG_VIEWS)
    assert open_cache(tmp_path / "feats").content_digests() == expected
    subprocess.run([COMMAND, "finish", tmp_path / "feats"], check=True)
    assert not list((tmp_path / "feats").rglob(".tmp-*"))


def test_the_script_of_the_page_on_clusters_runs_as_it_is_written(slurm: dict[str, str], tmp_path: Path) -> None:
    """Only /shared is another folder, and the teachers' names mean small networks."""
    page = (Path(__file__).parents[2] / "docs/cluster.md").read_text()
    script = next(block for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) if "#SBATCH --array" in block)
    shared = tmp_path / "shared"
    paint_folder(shared / "polyps", frames=20)
    save_weights(shared / "weights")
    called = tmp_path / "bin/difom-cache"
    called.parent.mkdir()
    called.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).parents[1] / "stand_ins.py"} "$@"\n')
    called.chmod(0o755)
    job = tmp_path / "job.sh"
    job.write_text(script.replace("/shared/", f"{shared}/"))
    alone = slurm | {"PATH": f"{called.parent}:{slurm['PATH']}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        ["sbatch", "--wait", "--chdir", str(tmp_path), str(job)], env=alone, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + "\n".join(log.read_text() for log in tmp_path.glob("*.log"))
    finished = subprocess.run([COMMAND, "finish", shared / "feats"], capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    cache = open_cache(shared / "feats")
    assert list(cache.teachers) == ["dinov2", "sam"] and cache.random_teachers == []
    assert len(list(tmp_path.glob("difom-extract-*.log"))) == 16
