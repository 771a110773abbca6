"""JSON files of a cache are checked where they enter: one line that names the file, the key and the way out."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from small_cache import identity_of, pictures_identity, teacher_identity

from difom_cache.errors import CacheFormatError
from difom_cache.store import IDENTITIES, read_checked

WHOLE = {"cache": identity_of(), "pictures": pictures_identity(), "teacher": teacher_identity()}


def read(path: Path, kind: str) -> Any:
    return read_checked(path, IDENTITIES[kind], CacheFormatError, "restore it")


@pytest.mark.parametrize("kind", WHOLE)
def test_identities_as_difom_writes_them_are_taken_with_keys_of_tomorrow(tmp_path: Path, kind: str):
    (tmp_path / "identity.json").write_text(json.dumps(WHOLE[kind] | {"of_tomorrow": 1}))
    assert read(tmp_path / "identity.json", kind) == WHOLE[kind] | {"of_tomorrow": 1}


@pytest.mark.parametrize(
    ("kind", "changed", "named"),
    [
        ("cache", {"rows": -1}, "rows"),
        ("cache", {"rows": True}, "rows"),
        ("cache", {"picture_px": "352"}, "picture_px"),
        ("cache", {"plan": []}, "plan"),
        ("pictures", {"block_rows": 0}, "block_rows"),
        ("pictures", {"compression": "lzma"}, "compression"),
        ("teacher", {"taps": []}, "taps"),
        ("teacher", {"teacher": None}, "teacher"),
        ("teacher", {"taps": [WHOLE["teacher"]["taps"][0] | {"name": "../../x@2"}]}, r"taps\.0\.name.*plain name"),
        ("teacher", {"taps": [WHOLE["teacher"]["taps"][0] | {"name": ".."}]}, r"taps\.0\.name.*plain name"),
        ("teacher", {"taps": [WHOLE["teacher"]["taps"][0]] * 2}, ".*each tap once"),
        ("teacher", {"taps": [WHOLE["teacher"]["taps"][0] | {"code_dtype": "object"}]}, ".*code_dtype"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_file(tmp_path: Path, kind: str, changed: dict[str, Any], named: str):
    (tmp_path / "identity.json").write_text(json.dumps(WHOLE[kind] | changed))
    with pytest.raises(CacheFormatError, match=rf"identity\.json cannot be read: {named}.*restore it"):
        read(tmp_path / "identity.json", kind)


@pytest.mark.parametrize("kind", WHOLE)
def test_a_missing_key_is_named(tmp_path: Path, kind: str):
    for key in set(WHOLE[kind]):
        lacking = {name: value for name, value in WHOLE[kind].items() if name != key}
        (tmp_path / "identity.json").write_text(json.dumps(lacking))
        with pytest.raises(CacheFormatError, match=f"{key}: Field required"):
            read(tmp_path / "identity.json", kind)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": NaN}', "\x00", "1" * 5000])
def test_what_is_no_json_is_said(tmp_path: Path, text: str):
    (tmp_path / "identity.json").write_text(text)
    with pytest.raises(CacheFormatError, match=r"identity\.json"):
        read(tmp_path / "identity.json", "cache")


def test_a_fifo_a_folder_and_a_device_are_refused_at_once(tmp_path: Path):
    os.mkfifo(tmp_path / "fifo")
    for path, kind in ((tmp_path / "fifo", "a FIFO"), (tmp_path, "a folder"), (Path("/dev/zero"), "a device")):
        with pytest.raises(CacheFormatError, match=f"{kind}, no plain file"):
            read(path, "cache")
