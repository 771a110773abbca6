"""Both images build over a base made by debootstrap, and do what docker/compose.yaml orders, service by service.

Layers stay in buildah's store, so that only the first time installs PyTorch; `buildah rmi --all` removes them.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from painted_folder import paint_folder

from difom_cache import extract, open_cache, verify
from difom_cache.teachers import fill_random, find_builder
from difom_train.training import read_checkpoint

ROOT = Path(__file__).parents[2]
SERVICES = yaml.safe_load((ROOT / "docker/compose.yaml").read_text("utf-8"))["services"]
SUITE, PYTHON = "bookworm", "3.11"
SMALL = {
    "extract": "--input-size 64 --views 2 --device cpu",
    "train": "--recipe baseline --width 2 --input-size 64 --batch-size 4 --epochs 2 --device cpu",
}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.geteuid() != 0 or not (shutil.which("buildah") and shutil.which("debootstrap")),
        reason="no images can be built: buildah or debootstrap is not installed, or this is not root",
    ),
]


def buildah(*words: str | Path) -> str:
    done = subprocess.run(["buildah", *map(str, words)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stdout[-2000:]} {done.stderr[-4000:]}"
    return done.stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def isolation() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BUILDAH_ISOLATION", "chroot")
        yield


@pytest.fixture(scope="module")
def images(isolation: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Images of the names that the compose file gives them."""
    base = f"localhost/debootstrapped:{SUITE}"
    if not buildah("images", "--quiet", "--filter", f"reference={base}"):
        container = buildah("from", "scratch")
        command = ["debootstrap", "--variant=minbase", SUITE, buildah("mount", container)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        buildah("commit", "--rm", container, base)
    machine = write_pip_settings(tmp_path_factory.mktemp("pip"))
    for image in ("cache", "train"):
        made = SERVICES["extract" if image == "cache" else "train"]
        dockerfile = ROOT / made["build"]["dockerfile"]
        options = ["--layers", "--build-arg", f"BASE={base}", "--build-arg", f"PYTHON={PYTHON}"]
        volumes = ["--volume", f"{machine}:/machine:ro", "--volume", f"{machine}/pip.conf:/etc/pip.conf:ro"]
        buildah("bud", *options, *volumes, "--file", dockerfile, "--tag", made["image"], ROOT)


def write_pip_settings(folder: Path) -> Path:
    """Write what this machine's pip needs to reach its index, certificates included, as it has to stand in a container."""
    listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
    settings = dict(re.findall(r"^(?:global|:env:)\.([\w-]+)='(.*)'$", listed.stdout, re.M))
    needed = ("index-", "proxy", "trusted-", "default-")
    kept = {key: value for key, value in settings.items() if key.startswith(needed)}
    if "cert" in settings:
        shutil.copy(settings["cert"], folder / "cert.pem")
        kept["cert"] = "/machine/cert.pem"
    lines = ["[global]", "no-compile = true", *(f"{key} = {value}" for key, value in kept.items())]
    (folder / "pip.conf").write_text("\n".join(lines) + "\n")
    return folder


@contextmanager
def started(service: str, values: dict[str, str]) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield a service's container, and the process that runs in it what the compose file says; both end with the block."""

    def fill(text: str) -> str:
        text = re.sub(r"\$\{(\w+):[-?]([^}]*)\}", lambda found: values.get(found[1], found[2]), text)
        return text.replace("scheduler:8786", f"localhost:{values['PORT']}").replace("8786", values["PORT"])

    asked = SERVICES[service]
    config = json.loads(buildah("inspect", "--type", "image", asked["image"]))["OCIv1"]["config"]
    words = [
        *asked.get("entrypoint", config["Entrypoint"]),
        *asked.get("command", []),
        *shlex.split(SMALL.get(service, "")),
    ]
    options = ["--user", asked.get("user", config["User"])]
    for volume in asked["volumes"]:
        source, to = fill(volume).split(":", 1)
        options += ["--volume", f"{values.get(source, source)}:{to}"]
    container = buildah("from", asked["image"])
    command = ["buildah", "run", *options, container, "--", *map(fill, words)]
    running = subprocess.Popen(command, text=True, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, process_group=0)
    try:
        yield container, running
    finally:
        if running.poll() is None:
            os.killpg(running.pid, signal.SIGTERM)
        running.communicate(timeout=60)
        buildah("rm", container)


def finish_service(service: str, values: dict[str, str]) -> None:
    with started(service, values) as (_, running):
        said = running.communicate(timeout=1800)[0]
        assert running.returncode == 0, said[-4000:]


def test_the_images_do_what_the_compose_file_orders(images: None, tmp_path: Path):
    data = paint_folder(tmp_path / "data", frames=8)
    family = find_builder("dinov2").__self__
    teacher = family.model_class(family.sizes["tiny"].config())
    fill_random(teacher, "of the images")
    teacher.save_pretrained(weights := tmp_path / "weights")
    feats, runs = tmp_path / "feats", tmp_path / "runs"
    values = {"DIFOM_DATA": data, "DIFOM_WEIGHTS": weights, "feats": feats, "runs": runs}
    values = {name: str(path) for name, path in values.items()}
    with socket.create_server(("localhost", 0)) as server:
        values |= {"PORT": str(server.getsockname()[1]), "DIFOM_TEACHER": "dinov2:tiny@56"}
    for volume in (feats, runs):
        volume.mkdir()
    for path in (tmp_path, *tmp_path.parents[:2], *weights.iterdir()):
        path.chmod(0o755)  # pytest's folders and safetensors' files are for root alone
    assert list(SERVICES) == ["volumes", "scheduler", "worker", "extract", "train"], "in the order of their conditions"
    finish_service("volumes", values)
    with ExitStack() as stack:
        container, _ = stack.enter_context(started("scheduler", values))
        test = SERVICES["scheduler"]["healthcheck"]["test"][1:]
        test = [word.replace("8786", values["PORT"]) for word in test]
        ends_at = time.monotonic() + 120
        while subprocess.run(["buildah", "run", container, "--", *test], capture_output=True, check=False).returncode:
            assert time.monotonic() < ends_at, "the scheduler does not become healthy"
            time.sleep(1)
        for _ in range(SERVICES["worker"]["deploy"]["replicas"]):
            stack.enter_context(started("worker", values))
        finish_service("extract", values)
    assert verify(feats).sound
    local = {
        "data": data,
        "weights": weights,
        "teacher": "dinov2:tiny@56",
        "input_size": 64,
        "views": 2,
        "backend": "torch",
    }
    extract(cache=tmp_path / "here", quiet=True, **local)
    assert open_cache(feats).content_digests() == open_cache(tmp_path / "here").content_digests()
    finish_service("train", values)
    assert read_checkpoint(runs / "unet")[0].epochs_done == 2
    owners = {path.stat().st_uid for folder in (feats, runs) for path in (folder, *folder.rglob("*"))}
    assert owners == {1000}


@pytest.mark.parametrize("image", ["difom-cache", "difom-train"])
def test_an_image_writes_nothing_where_data_lie(images: None, tmp_path: Path, image: str):
    container = buildah("from", image)
    try:
        tmp_path.chmod(0o777)
        words = [
            "run",
            "--volume",
            f"{tmp_path}:/data:ro",
            container,
            "--",
            "sh",
            "-c",
            "id -u; touch /data/new || true",
        ]
        assert buildah(*words) == "1000" and not list(tmp_path.iterdir())
    finally:
        buildah("rm", container)
