"""File systems of clusters, each mounted twice as on two machines, whose servers can be stopped and started.

Each is skipped where its programs are not installed: Debian's sshfs and openssh-server, glusterfs-server, and moosefs-master,
moosefs-chunkserver and moosefs-client.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

ANSWERS_S = 30  # that a server takes to come back


@dataclass
class Shared:
    """A file system that is mounted twice, as on two machines.

    Attributes:
        one, other: where.
        kind: its name.
        stop, start: all servers that hold data, as a failure of the network would.
        stop_half: one of the two that hold the same data.
    """

    one: Path
    other: Path
    kind: str
    stop: Callable[[], object]
    start: Callable[[], object]
    stop_half: Callable[[], object] = lambda: pytest.skip("there is one server")


def run(*words: object) -> str:
    done = subprocess.run([*map(str, words)], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
    return done.stdout


def need(*programs: str) -> None:
    if missing := [program for program in programs if shutil.which(program) is None]:
        pytest.skip(f"{', '.join(missing)} not installed")


def find_port(address: str) -> int:
    with socket.socket() as free:
        free.bind((address, 0))
        return int(free.getsockname()[1])


def mount_twice(tmp_path: Path, stack: ExitStack, mount: Callable[[Path], object]) -> tuple[Path, Path]:
    places = tmp_path / "one", tmp_path / "other"
    for place in places:
        place.mkdir()
        mount(place)
        stack.callback(subprocess.run, ["umount", "-l", str(place)], check=False)
    return places


def serve_ssh(tmp_path: Path, stack: ExitStack) -> Shared:
    need("sshfs", "sshd", "ssh-keygen")
    port = find_port("127.0.0.1")
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

    def stop_half() -> None:
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # gone since
                if str(tmp_path / "brick2").encode() in (process / "cmdline").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)

    return Shared(
        *(one, other, "fuse.glusterfs"),
        lambda: run("gluster", "--mode=script", "volume", "stop", "difom-test", "force"),
        lambda: run("gluster", "--mode=script", "volume", "start", "difom-test", "force"),
        stop_half,
    )


class Supervised:
    """A server below a shell, which starts it again unless it is to stay away.

    A process that this one started would inherit files that are open on the mount, and wait for the server to close them.
    """

    def __init__(self, program: str, config: Path, stack: ExitStack) -> None:
        self._down, self._pid = config.with_suffix(".down"), config.with_suffix(".pid")
        loop = 'while :; do [ -e "$1" ] || { "$3" -f -c "$4" & echo $! > "$2"; wait; }; sleep 0.1; done'
        shell = subprocess.Popen(
            ["sh", "-c", loop, "sh", str(self._down), str(self._pid), program, str(config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        stack.callback(self.stop)
        stack.callback(shell.wait)
        stack.callback(shell.kill)

    def stop(self) -> None:
        self._down.touch()
        with suppress(ProcessLookupError):
            os.kill(int(self._pid.read_text()), signal.SIGKILL)

    def start(self) -> None:
        self._down.unlink(missing_ok=True)


def serve_moose(tmp_path: Path, stack: ExitStack) -> Shared:
    need("mfsmaster", "mfschunkserver", "mfsmount")
    address = run("hostname", "-I").split()[0]  # it refuses the loopback
    ports = [find_port(address) for _ in range(5)]
    (tmp_path / "exports").write_text("* / rw,alldirs,maproot=0\n")
    (tmp_path / "master").mkdir()
    (tmp_path / "master/metadata.mfs").write_text("MFSM NEW")
    common = "WORKING_USER = root\nWORKING_GROUP = root\nDATA_PATH = {0}\n"
    (tmp_path / "master.cfg").write_text(
        common.format(tmp_path / "master")
        + f"EXPORTS_FILENAME = {tmp_path / 'exports'}\n"
        + "".join(
            f"{of}_LISTEN_HOST = {address}\n{of}_LISTEN_PORT = {port}\n"
            for of, port in zip(("MATOML", "MATOCS", "MATOCL"), ports, strict=False)
        )
    )
    for name, port in zip(("chunks1", "chunks2"), ports[3:], strict=True):
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}-disk").mkdir()
        (tmp_path / f"{name}.disks").write_text(f"{tmp_path / f'{name}-disk'}\n")
        (tmp_path / f"{name}.cfg").write_text(
            common.format(tmp_path / name)
            + f"HDD_CONF_FILENAME = {tmp_path / f'{name}.disks'}\nHDD_LEAVE_SPACE_DEFAULT = 4MiB\n"
            + f"MASTER_HOST = {address}\nMASTER_PORT = {ports[1]}\n"
            + f"CSSERV_LISTEN_HOST = {address}\nCSSERV_LISTEN_PORT = {port}\n"
        )
    held = {
        name: Supervised(program, tmp_path / f"{name}.cfg", stack)
        for name, program in (("master", "mfsmaster"), ("chunks1", "mfschunkserver"), ("chunks2", "mfschunkserver"))
    }
    time.sleep(5)  # until they know each other
    one, other = mount_twice(tmp_path, stack, lambda to: run("mfsmount", to, "-H", address, "-P", ports[2]))
    chunks = held["chunks1"], held["chunks2"]
    return Shared(
        *(one, other, "fuse", lambda: [each.stop() for each in chunks], lambda: [each.start() for each in chunks]),
        chunks[1].stop,
    )


def wait_until_it_answers(place: Path) -> None:
    for _ in range(ANSWERS_S):
        try:
            list(place.iterdir())
        except OSError:
            time.sleep(1)
        else:
            return
    raise AssertionError(f"{place} does not come back")
