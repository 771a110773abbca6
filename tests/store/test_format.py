"""FORMAT.md is enough: its own reader, run from the document, gives what ours gives."""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_cache import Shape, teacher_identity, write_small_cache

import difom_cache
from difom_cache import copy, open_cache
from difom_cache.codecs import CODECS, Codec, CompactBasis, build_codec
from difom_cache.errors import CacheFormatError
from difom_cache.store import (
    FORMAT_VERSION,
    TapSpec,
    TeacherIdentity,
    create_column,
    describe_tap,
    teacher_column,
    write_basis,
    write_block,
)
from difom_cache.views import COLUMNS

DOCUMENT = (Path(difom_cache.__file__).parent / "FORMAT.md").read_text()


@pytest.fixture(scope="module")
def reader() -> dict[str, Any]:
    """The names that the document's Python defines."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)
    assert "difom" not in code
    names: dict[str, Any] = {}
    exec(compile(code, "FORMAT.md", "exec"), names)
    return names


def test_the_documents_reader_gives_what_gather_gives(tmp_path: Path, reader: dict[str, Any]) -> None:
    small, rows = write_small_cache(tmp_path), [13, 0, 6, 7]
    cache = open_cache(tmp_path)
    np.testing.assert_array_equal(
        reader["read_rows"](tmp_path / "pictures", "image", rows), small.arrays["image"][rows]
    )
    for tap in cache.taps:
        batch = cache.gather(rows, [tap], pictures=False)
        ours = cache.decode(tap, batch[f"{tap}/code"], batch.get(f"{tap}/scale"))
        np.testing.assert_array_equal(reader["read_target"](tmp_path, tap, rows), ours)


def test_the_documents_reader_decodes_a_compact_tap(tmp_path: Path, reader: dict[str, Any]) -> None:
    shape, rng = Shape(), np.random.default_rng(0)
    write_small_cache(tmp_path, shape)
    directions = np.linalg.qr(rng.normal(size=(128, 48)))[0].astype(np.float32)
    basis = CompactBasis(rng.normal(size=128).astype(np.float32), directions, 0.9)
    codec: Codec = build_codec("compact", 128, basis=basis)
    tap = TapSpec("two/block@4", "feature", 128, 2, 4.0, "compact")
    identity = TeacherIdentity.build(**teacher_identity(shape, "two", taps=[describe_tap(tap, codec)]))
    column = teacher_column(identity, "two", shape.rows)
    write_basis(tmp_path / "teachers/two/block@4", "compact", basis)
    create_column(tmp_path, column, identity)
    for block in range(column.blocks):
        start, stop = column.range_of(block)
        code = rng.integers(-127, 128, (stop - start, 48, 2, 2), np.int8)
        scale = rng.uniform(0.1, 1, (stop - start, 48)).astype(np.float32)
        write_block(tmp_path, column, block, {"block@4/code": code, "block@4/scale": scale})
    cache = open_cache(tmp_path)
    batch = cache.gather([9, 2], ["two/block@4"], pictures=False)
    ours = cache.decode("two/block@4", batch["two/block@4/code"], batch["two/block@4/scale"])
    np.testing.assert_allclose(reader["read_target"](tmp_path, "two/block@4", [9, 2]), ours, rtol=1e-5, atol=1e-3)


def test_the_documents_reader_decodes_a_packed_tap(tmp_path: Path, reader: dict[str, Any]) -> None:
    wide = write_small_cache(tmp_path / "wide", Shape(records=40, channels=128))
    copy(wide.path, tmp_path / "packed", codec="packed")
    cache, tap = open_cache(tmp_path / "packed"), "one/block1@2"
    assert cache.taps[tap].codec == "packed"
    batch = cache.gather([9, 2], [tap], pictures=False)
    assert batch[f"{tap}/code"].dtype == np.uint8 and batch[f"{tap}/code"].shape == (2, 18, 4, 4)
    ours = cache.decode(tap, batch[f"{tap}/code"], batch[f"{tap}/scale"])
    np.testing.assert_allclose(reader["read_target"](tmp_path / "packed", tap, [9, 2]), ours, rtol=1e-5, atol=1e-3)


def test_a_codec_of_a_later_version_is_refused_in_one_line(tmp_path: Path) -> None:
    write_small_cache(tmp_path)
    path = tmp_path / "teachers/one/identity.json"
    path.write_text(path.read_text().replace('"name": "int8"', '"name": "wavelets"'))
    with pytest.raises(CacheFormatError, match="one/block1@2 is stored in codec 'wavelets', which this difom does not"):
        open_cache(tmp_path)


def test_the_documents_reader_refuses_what_is_not_finished(tmp_path: Path, reader: dict[str, Any]) -> None:
    write_small_cache(tmp_path, leave_out=(1,))
    with pytest.raises(LookupError, match="row 5 is not finished"):
        reader["read_target"](tmp_path, "one/logits@2", [0, 5])


def test_digests_are_made_as_the_document_says(tmp_path: Path) -> None:
    def digest(value: Any) -> str:
        text = json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
        return hashlib.sha256(text.encode()).hexdigest()

    write_small_cache(tmp_path)
    columns = {}
    for folder in ("pictures", "teachers/one"):
        markers = {str(int(p.stem)): json.loads(p.read_text()) for p in (tmp_path / folder / "ticks").glob("*.json")}
        files = {block: {name: f["sha256"] for name, f in marker["files"].items()} for block, marker in markers.items()}
        identity = json.loads((tmp_path / folder / "identity.json").read_text())
        columns[folder] = digest({"files": files, "folder": folder, "identity": identity})
    whole = digest({"columns": columns, "identity": json.loads((tmp_path / "identity.json").read_text())})
    assert open_cache(tmp_path).content_digests() == columns | {"cache": whole}


def test_the_document_speaks_of_this_version_and_of_all_codecs_and_params() -> None:
    assert f"format version {FORMAT_VERSION}\n" in DOCUMENT
    for name in CODECS:
        assert f"| `{name}` |" in DOCUMENT
    said = re.sub(r"[`\s(),]+", " ", DOCUMENT[DOCUMENT.index("## 7.") : DOCUMENT.index("## 8.")])
    for name in COLUMNS:
        assert f" {name} " in said


def test_every_file_of_a_cache_is_named_in_the_document(tmp_path: Path) -> None:
    write_small_cache(tmp_path, Shape(pads=True))
    for path in tmp_path.rglob("*"):
        if path.is_file() and not path.name.startswith("c."):
            known = re.sub(r"\d{6}", "000000", path.name)
            assert known in DOCUMENT, path
