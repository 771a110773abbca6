"""Whatever bytes come, the readers answer with what they promise: a value, or the one error that names the file."""

import csv
import io
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from small_cache import identity_of, pictures_identity, teacher_identity

from difom_cache import read_image
from difom_cache.base.text import guard_cell, unguard_cell
from difom_cache.data import MaskPixels, choose_polyp, describe_odd_levels, parse_levels, read_manifest
from difom_cache.errors import CacheDamagedError, CacheFormatError, ImageError, ManifestError, SettingsError
from difom_cache.store import IDENTITIES, read_checked, read_marker

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
_BUFFER = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)).save(_BUFFER, "PNG")
PICTURE = _BUFFER.getvalue()
WHOLE = {"cache": identity_of(), "pictures": pictures_identity(), "teacher": teacher_identity()}


@given(text=st.text())
@QUICK
def test_a_cell_comes_back_as_it_was_and_never_starts_a_formula(text: str):
    cell = guard_cell(text)
    assert unguard_cell(cell) == text
    assert cell[:1] not in tuple("=+-@\t\r") or cell == ""


@given(content=st.binary(max_size=300))
@QUICK
def test_bytes_are_a_picture_or_an_image_error(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "bytes.png"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"bytes\.png"):
        read_image(path)


@given(place=st.integers(0, 10_000), value=st.integers(1, 255))
@QUICK
def test_a_picture_with_one_other_byte_is_read_or_refused(place, value, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "other.png"
    content = bytearray(PICTURE)
    content[place % len(content)] ^= value
    path.write_bytes(content)
    try:
        assert read_image(path).ndim == 3
    except ImageError as error:
        assert "other.png" in str(error)


@given(value=JSON)
@QUICK
def test_any_json_is_no_identity_and_no_marker(value, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "any.json"
    path.write_text(json.dumps(value))
    for schema in IDENTITIES.values():
        with pytest.raises(CacheFormatError, match=r"any\.json"):
            read_checked(path, schema, CacheFormatError, "restore it")
    with pytest.raises(CacheDamagedError, match=r"any\.json"):
        read_marker(path)


@given(kind=st.sampled_from(sorted(WHOLE)), key=st.integers(0, 99), value=JSON)
@QUICK
def test_an_identity_with_one_other_value_is_taken_or_refused(
    kind, key, value, tmp_path_factory: pytest.TempPathFactory
):
    path = tmp_path_factory.getbasetemp() / "identity.json"
    names = sorted(WHOLE[kind])
    path.write_text(json.dumps(WHOLE[kind] | {names[key % len(names)]: value}))
    try:
        read_checked(path, IDENTITIES[kind], CacheFormatError, "restore it")
    except CacheFormatError as error:
        assert "identity.json" in str(error)


@given(rows=st.lists(st.lists(st.text(max_size=12), max_size=11), max_size=4), head=st.booleans())
@QUICK
def test_any_table_is_a_manifest_or_refused_by_name(rows, head, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    text = io.StringIO()
    if head:
        text.write("id,dataset,split,image,mask,width,height,image_sha256,mask_sha256,group\n")
    csv.writer(text).writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8", errors="surrogatepass")
    with pytest.raises(ManifestError, match=r"any\.csv"):
        read_manifest(path)


@given(text=st.text(max_size=12))
@QUICK
def test_any_text_is_levels_or_refused(text: str):
    try:
        levels = parse_levels(text)
    except SettingsError as error:
        assert "--mask-levels" in str(error)
    else:
        for lossy in (False, True):
            pixels = MaskPixels.of_rgba(np.zeros((2, 2, 4), np.uint8), lossy=lossy)
            assert choose_polyp(pixels, levels).shape == (2, 2)


@given(low=st.integers(0, 255), high=st.integers(0, 255))
@QUICK
def test_two_grey_levels_are_a_mask_of_both_or_refused(low: int, high: int):
    """A lossless mask that is taken holds polyp wherever its higher level is, never nothing in silence."""
    pixels = MaskPixels(np.array([[low, high]], np.uint8))
    if not describe_odd_levels(pixels):
        polyp = choose_polyp(pixels, None)
        assert polyp.any() or max(low, high) == 0
