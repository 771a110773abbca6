"""Caches on file systems of clusters, as they are: each mounted twice, its server stopped and started, a disk that is full.

Each is skipped where its programs are not installed (Debian's glusterfs-server, sshfs and openssh-server), or nobody may mount.
"""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from small_cache import write_small_cache

from difom_cache import copy, finish, info, open_cache, verify
from difom_cache.base import disk
from difom_cache.errors import CacheSpaceError, StorageError
from difom_cache.store import choose_access, file_system_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="nothing can be mounted"),
]
ANSWERS_S = 30  # that a server takes to come back


@dataclass
class Shared:
    """A file system that is mounted twice, as on two machines."""

    one: Path
    other: Path
    kind: str
    stop: Callable[[], object]
    start: Callable[[], object]


def run(*words: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")


def mount_twice(tmp_path: Path, stack: ExitStack, mount: Callable[[Path], object]) -> tuple[Path, Path]:
    places = tmp_path / "one", tmp_path / "other"
    for place in places:
        place.mkdir()
        mount(place)
        stack.callback(subprocess.run, ["umount", "-l", str(place)], check=False)
    return places


def serve_ssh(tmp_path: Path, stack: ExitStack) -> Shared:
    need("sshfs", "sshd", "ssh-keygen")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    Path("/run/sshd").mkdir(exist_ok=True)
    (tmp_path / "held").mkdir()
    for name in ("host", "user"):
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name)
    config = tmp_path / "sshd_config"
    sftp = next(
        path for path in ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server") if Path(path).exists()
    )
    config.write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {tmp_path / 'host'}\nAuthorizedKeysFile {tmp_path / 'user.pub'}\n"
        f"StrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nSubsystem sftp {sftp}\n"
    )
    served: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        served.append(subprocess.Popen([str(shutil.which("sshd")), "-D", "-f", str(config)], start_new_session=True))
        for _ in range(100):
            with socket.socket() as asked:
                if asked.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)

    def stop() -> None:
        children = run("ps", "-o", "pid=", "--ppid", served[-1].pid).split()  # of each connection
        for pid in children:
            grandchildren = subprocess.run(
                ["ps", "-o", "pid=", "--ppid", pid], capture_output=True, text=True, check=False
            )
            for number in (*grandchildren.stdout.split(), pid):
                os.kill(int(number), 9)
        served[-1].kill()
        served[-1].wait()

    start()
    stack.callback(lambda: served[-1].wait())
    stack.callback(lambda: served[-1].kill())
    options = "reconnect,StrictHostKeyChecking=no,UserKnownHostsFile=/dev/null,ConnectTimeout=2,ServerAliveInterval=2"
    held = f"root@127.0.0.1:{tmp_path / 'held'}"
    one, other = mount_twice(
        tmp_path,
        stack,
        lambda to: run("sshfs", "-p", port, "-o", f"IdentityFile={tmp_path / 'user'},{options}", held, to),
    )
    return Shared(one, other, "fuse.sshfs", stop, start)


def serve_gluster(tmp_path: Path, stack: ExitStack) -> Shared:
    need("glusterd", "gluster", "mount.glusterfs")
    if subprocess.run(["gluster", "volume", "list"], capture_output=True, check=False).returncode != 0:
        served = subprocess.Popen(["glusterd", "--no-daemon"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(served.wait)
        stack.callback(served.kill)
        time.sleep(5)
    bricks = [f"{socket.gethostname()}:{tmp_path / name}" for name in ("brick1", "brick2")]
    run("gluster", "--mode=script", "volume", "create", "difom-test", "replica", 2, *bricks, "force")
    stack.callback(subprocess.run, ["gluster", "--mode=script", "volume", "delete", "difom-test"], check=False)
    run("gluster", "--mode=script", "volume", "start", "difom-test")
    stack.callback(subprocess.run, ["gluster", "--mode=script", "volume", "stop", "difom-test", "force"], check=False)
    source = f"{socket.gethostname()}:/difom-test"
    one, other = mount_twice(tmp_path, stack, lambda to: run("mount", "-t", "glusterfs", source, to))
    return Shared(
        *(one, other, "fuse.glusterfs"),
        lambda: run("gluster", "--mode=script", "volume", "stop", "difom-test", "force"),
        lambda: run("gluster", "--mode=script", "volume", "start", "difom-test", "force"),
    )


@pytest.fixture(params=[serve_ssh, serve_gluster], ids=["sshfs", "glusterfs"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    with ExitStack() as stack:
        yield request.param(tmp_path, stack)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def wait_until_it_answers(place: Path) -> None:
    for _ in range(ANSWERS_S):
        try:
            list(place.iterdir())
        except OSError:
            time.sleep(1)
        else:
            return
    raise AssertionError(f"{place} does not come back")


def test_a_server_that_stops_and_starts_costs_lines_and_nothing_else(
    shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(disk, "WAITS_S", (0.1,))
    assert file_system_of(shared.one) == shared.kind and choose_access(shared.one) == "read"
    write_small_cache(tmp_path / "local", leave_out=())
    write_small_cache(shared.one / "feats", leave_out=())
    due = open_cache(tmp_path / "local").content_digests()
    there = open_cache(shared.other / "feats")
    assert there.content_digests() == due and not any(finish(shared.other / "feats").values())
    finish(tmp_path / "local")
    assert verify(shared.other / "feats").sound
    whole, rows = files_of(tmp_path / "local"), np.arange(len(there))
    held = {name: values.tobytes() for name, values in there.gather(rows).items()}
    shared.stop()
    for place in (shared.one / "feats", shared.other / "feats"):
        for command in (
            verify,
            finish,
            info,
            lambda path: open_cache(path).gather([0]),
            lambda path: copy(path, tmp_path / "to"),
        ):
            with pytest.raises(StorageError) as raised:
                command(place)
            told = str(raised.value)
            assert str(place) in told and "now" in told and "restore" not in told and "extract --cache" not in told, (
                told
            )
    shared.start()
    for place in (shared.one, shared.other):
        wait_until_it_answers(place)
    for place in (shared.one / "feats", shared.other / "feats"):
        assert files_of(place) == whole, "nothing is withdrawn, listed as damaged or added"
        assert open_cache(place).content_digests() == due and verify(place).sound
    again = open_cache(shared.other / "feats").gather(rows)
    assert {name: values.tobytes() for name, values in again.items()} == held


def test_a_disk_that_is_full_is_one_line_and_the_same_command_goes_on_when_there_is_room(tmp_path: Path):
    small, source = tmp_path / "small", tmp_path / "source"
    small.mkdir()
    write_small_cache(source, leave_out=())
    finish(source)
    run("mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", small)
    try:
        with pytest.raises(CacheSpaceError, match=r"cannot write .*No space left on device.*make room"):
            copy(source, small / "feats")
        left = files_of(small)
        assert left and not any(".tmp-" in name for name in left), "what could not be written whole is not there"
        run("mount", "-o", "remount,size=64m", small)
        copy(source, small / "feats")
        assert open_cache(small / "feats").content_digests() == open_cache(source).content_digests()
        assert verify(small / "feats").sound and left.items() <= files_of(small).items()
    finally:
        run("umount", small)
