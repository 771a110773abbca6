from types import SimpleNamespace

import pytest

from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_train import build_student
from difom_train.distill import Match, choose_teachers, logits_taps, match_bottleneck, match_levels
from difom_train.students import Level


def hold(picture_px, **strides_of_tap):
    """Return a cache of taps "teacher/place" at strides; a name with "logits" has that kind."""
    taps = {}
    for name, stride in strides_of_tap.items():
        teacher, _, place = name.partition("__")
        kind = "logits" if place == "logits" else "feature"
        channels = 1 if kind == "logits" else 8
        taps[f"{teacher}/{place}@{stride:g}"] = SimpleNamespace(
            kind=kind, channels=channels, grid=round(picture_px / stride), stride=stride
        )
    return SimpleNamespace(taps=taps, picture_px=picture_px)


@pytest.fixture(scope="module")
def unet():
    return build_student("unet", width=2)


def test_each_teachers_tap_at_the_bottlenecks_stride_is_taken(unet):
    cache = hold(352, sam__neck=16, sam__block8=32, dinov2__block11=16, dinov2__block5=32)
    assert match_bottleneck(cache, ["sam", "dinov2"], unet, 352) == [
        Match("sam/neck@16", "bottleneck", 22),
        Match("dinov2/block11@16", "bottleneck", 22),
    ]


def test_pranets_bottleneck_takes_the_coarser_taps():
    pranet = SimpleNamespace(name="pranet", levels={"bottleneck": Level(channels=2048, stride=32)})
    cache = hold(352, sam__neck=16, sam__block8=32)
    assert match_bottleneck(cache, ["sam"], pranet, 352) == [Match("sam/block8@32", "bottleneck", 11)]


def test_the_loss_is_on_the_coarser_grid_when_the_student_sees_smaller_pictures(unet):
    cache = hold(352, sam__neck=16)
    assert match_bottleneck(cache, ["sam"], unet, 128) == [Match("sam/neck@16", "bottleneck", 8)]


def test_a_tap_of_the_same_grid_serves_where_no_stride_is_equal(unet):
    """A 128 px student taught: its bottleneck has 8 cells, which span 44 px of a 352 px picture."""
    cache = hold(352, student__bottleneck=44)
    assert match_bottleneck(cache, ["student"], unet, 128) == [Match("student/bottleneck@44", "bottleneck", 8)]


def test_a_teacher_without_a_tap_near_the_bottleneck_is_refused_with_what_the_cache_holds(unet):
    cache = hold(352, sam__neck=16, dinov2__early=4, dinov2__logits=2)
    with pytest.raises(
        CacheIncompleteError, match=r"of dinov2 near stride 16 .*dinov2/early@4 \(feature\), dinov2/logits@2 \(logits\)"
    ):
        match_bottleneck(cache, ["sam", "dinov2"], unet, 352)


def test_a_teacher_of_logits_alone_is_left_out_beside_one_with_features(unet):
    cache = hold(352, sam__neck=16, probe__logits=8)
    assert match_bottleneck(cache, ["sam", "probe"], unet, 352) == [Match("sam/neck@16", "bottleneck", 22)]
    with pytest.raises(CacheIncompleteError, match=r"of probe near stride 16 .*probe/logits@8 \(logits\)"):
        match_bottleneck(cache, ["probe"], unet, 352)


def test_every_level_of_a_stride_learns_from_its_taps_and_the_deepest_from_coarser_ones(unet):
    cache = hold(352, a__x=8, a__y=16, b__z=32, a__logits=2)
    assert match_levels(cache, ["a", "b"], unet, 352) == [
        Match("a/x@8", "encoder4", 44),
        Match("a/x@8", "decoder1", 44),
        Match("a/y@16", "bottleneck", 22),
        Match("b/z@32", "bottleneck", 11),
    ]


def test_a_deeper_tap_never_teaches_a_shallower_level_when_the_student_sees_smaller_pictures(unet):
    """At 96 px the deep tap's 11 cells are nearest to the 12 of stride 8; that is no reason to pass by the bottleneck."""
    cache = hold(352, a__middle=16, a__deep=32)
    assert match_levels(cache, ["a"], unet, 96) == [
        Match("a/middle@16", "bottleneck", 6),
        Match("a/deep@32", "bottleneck", 6),
    ]


def test_taps_of_another_student_are_matched_by_the_grids_that_they_share(unet):
    cache = hold(352, student__encoder4=22, student__bottleneck=44)  # taught at 128 px
    assert match_levels(cache, ["student"], unet, 128) == [
        Match("student/encoder4@22", "encoder4", 16),
        Match("student/encoder4@22", "decoder1", 16),
        Match("student/bottleneck@44", "bottleneck", 8),
    ]


def test_a_tap_far_from_every_level_teaches_none(unet):
    assert match_levels(hold(352, a__x=88), ["a"], unet, 352) == []


def test_only_the_chosen_teachers_are_heard():
    cache = hold(352, sam__neck=16, dinov2__block11=16, onnx__logits=2)
    assert choose_teachers(cache, []) == ["sam", "dinov2", "onnx"]
    assert choose_teachers(cache, ["onnx", "sam"]) == ["sam", "onnx"]
    assert logits_taps(cache, ["sam"]) == [] and logits_taps(cache, ["onnx"]) == ["onnx/logits@2"]
    with pytest.raises(SettingsError, match="did you mean 'dinov2'"):
        choose_teachers(cache, ["dino"])


def test_logits_of_many_classes_are_not_polyp_logits():
    cache = hold(352, onnx__logits=2)
    cache.taps["onnx/logits@2"].channels = 150
    assert logits_taps(cache, ["onnx"]) == []
