"""Caches on file systems of clusters, as they are: each mounted twice, its server stopped and started, a disk that is full.

Each is skipped where its programs are not installed (Debian's glusterfs-server, sshfs and openssh-server), or nobody may mount.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from servers import Shared, run, serve_gluster, serve_ssh, wait_until_it_answers
from small_cache import write_small_cache

from difom_cache import copy, finish, info, open_cache, verify
from difom_cache.base import disk
from difom_cache.errors import CacheSpaceError, StorageError
from difom_cache.store import choose_access, file_system_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0 or not Path("/dev/fuse").exists(), reason="nothing can be mounted"),
]


@pytest.fixture(params=[serve_ssh, serve_gluster], ids=["sshfs", "glusterfs"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shared]:
    with ExitStack() as stack:
        yield request.param(tmp_path, stack)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


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
        left = {name: content for name, content in files_of(small).items() if not name.endswith("zarr.json")}
        assert left and not any(".tmp-" in name for name in files_of(small)), (
            "what cannot be written whole is not there"
        )
        run("mount", "-o", "remount,size=64m", small)
        copy(source, small / "feats")
        assert open_cache(small / "feats").content_digests() == open_cache(source).content_digests()
        assert verify(small / "feats").sound and left.items() <= files_of(small).items()
    finally:
        run("umount", small)
