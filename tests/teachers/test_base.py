import dataclasses

import pytest

from difom_cache import build_teacher
from difom_cache.errors import SettingsError, TeacherError
from difom_cache.teachers import NativeTap, TapRequest, TeacherRequest, choose_taps, choose_variant

NATIVE = {"fine": NativeTap("fine", 8, 8), "coarse": NativeTap("coarse", 16, 32)}
DEFAULTS = (TapRequest("fine", 8), TapRequest("coarse", 32))


def names(order: TeacherRequest, input_px: int = 352) -> list[str]:
    return [tap.name for tap in choose_taps(order, NATIVE, DEFAULTS, input_px)]


def test_without_a_word_the_default_taps_are_kept():
    assert names(TeacherRequest()) == ["fine@8", "coarse@32"]


def test_a_stride_is_taken_from_every_default_tap_that_reaches_it():
    assert names(TeacherRequest(strides=(16, 32))) == ["fine@16", "fine@32", "coarse@32"]


def test_a_stride_that_no_default_tap_reaches_is_refused():
    with pytest.raises(
        TeacherError, match=r"fine@4 asks for 88 x 88 cells, but fine has 44 x 44 at an input of 352 px"
    ):
        names(TeacherRequest(strides=(4,)))


def test_the_refusal_names_an_input_that_is_large_enough():
    with pytest.raises(TeacherError, match=r"a stride of at least 8, or an input of 704 px"):
        names(TeacherRequest(taps=("fine@4",)))


def test_a_named_tap_takes_its_own_stride_then_the_orders_then_its_default():
    assert names(TeacherRequest(taps=("fine@16", "coarse"))) == ["fine@16", "coarse@32"]
    assert names(TeacherRequest(taps=("fine",), strides=(8, 16))) == ["fine@8", "fine@16"]


def test_a_tap_without_any_stride_is_kept_at_16_or_the_finest_it_reaches():
    native = {"a": NativeTap("a", 4, 8), "b": NativeTap("b", 4, 32)}
    chosen = choose_taps(TeacherRequest(taps=("a", "b")), native, (), 352)
    assert [tap.name for tap in chosen] == ["a@16", "b@32"]


def test_native_keeps_the_teachers_own_grid():
    order = TeacherRequest(taps=("fine@native",), picture_px=352)
    (tap,) = choose_taps(order, NATIVE, DEFAULTS, 1024)
    assert tap.name == "fine@2.75" and tap.grid(352) == 128


def test_the_same_tap_twice_is_kept_once():
    assert names(TeacherRequest(taps=("fine@8", "fine"))) == ["fine@8"]


@pytest.mark.parametrize("text", ["fine@", "fine@x", "fine@-8", "fine@0"])
def test_what_is_no_stride_is_refused(text):
    if text == "fine@":
        assert names(TeacherRequest(taps=(text,))) == ["fine@8"]
        return
    with pytest.raises(TeacherError, match="expected a stride"):
        names(TeacherRequest(taps=(text,)))


def test_a_stride_must_divide_the_picture_and_the_nearest_is_named():
    with pytest.raises(TeacherError, match=r"does not divide a picture of 352 px; choose a divisor of 352, such as 11"):
        TapRequest("fine", 10).grid(352)


def test_an_unknown_variant_names_the_nearest():
    with pytest.raises(SettingsError, match="did you mean 'vit_b'"):
        choose_variant("sam", "vitb", {"vit_b": 1, "vit_h": 2})


def test_precision_follows_the_device_unless_it_is_named():
    assert TeacherRequest(device="cuda:1").chosen_precision == "bfloat16"
    assert TeacherRequest().chosen_precision == "float32"
    assert TeacherRequest(device="cuda", precision="float32").chosen_precision == "float32"


@pytest.mark.parametrize("precision", ["foo", "float16", ""])
def test_a_precision_that_no_teacher_computes_in_is_refused_naming_those_there_are(precision):
    with pytest.raises(SettingsError, match=f"precision: expected float32 or bfloat16, found '{precision}'"):
        TeacherRequest(precision=precision)
    with pytest.raises(SettingsError, match="expected float32 or bfloat16"):
        build_teacher("dinov2:tiny", weights="random", precision=precision)


def test_a_teacher_of_another_package_cannot_write_a_precision_that_there_is_not():
    spec = build_teacher("dinov2:tiny", weights="random").spec
    with pytest.raises(SettingsError, match="expected float32 or bfloat16, found 'tf32'"):
        dataclasses.replace(spec, precision="tf32")
