"""Places to write, checked before any work."""

import os
from pathlib import Path

import pytest

from difom_cache.base.outputs import check_out_file, check_out_folder, check_outputs
from difom_cache.errors import SettingsError


def test_what_is_there_or_can_be_made_passes(tmp_path: Path) -> None:
    check_out_folder(tmp_path)
    check_out_folder(tmp_path / "new" / "deep")
    check_out_file(tmp_path / "new" / "a.PNG", endings=(".png",), force=False)
    (tmp_path / "a.png").write_bytes(b"x")
    check_out_file(tmp_path / "a.png", force=True)


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("folder", "is a folder, but a file is to be written"),
        ("file/below", "is a file, so nothing can lie below it"),
        ("nowhere", "is a link to nothing"),
        ("nowhere/below", "is a link to nothing"),
        ("file", "exists; .* --force"),
        ("pipe", "is no plain file"),
    ],
)
def test_a_file_that_cannot_be_written_is_one_line(tmp_path: Path, place: str, reason: str) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SettingsError, match=rf"^--out.*{reason}") as caught:
        check_out_file(tmp_path / place, force=False)
    assert "\n" not in str(caught.value)


def test_another_ending_is_refused_with_the_ones_that_are_written(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"has to end in \.png or \.svg"):
        check_out_file(tmp_path / "a.foo", endings=(".png", ".svg"))


def test_outputs_that_meet_an_input_or_each_other_or_leave_the_folder_are_refused(tmp_path: Path) -> None:
    out, picture = tmp_path / "out", tmp_path / "out" / "a.png"
    out.mkdir()
    picture.write_bytes(b"x")
    check_outputs(out, [out / "b.png", out / "c" / "d.png"], [picture])
    for outputs, reason in (
        ([picture], "is an input"),
        ([out / "b.png", out / "b.png"], "two inputs would both be written"),
        ([out / "b", out / "b" / "c"], "would be a file and a folder"),
        ([out / ".." / "b.png"], "outside"),
    ):
        with pytest.raises(SettingsError, match=reason):
            check_outputs(out, outputs, [picture])
