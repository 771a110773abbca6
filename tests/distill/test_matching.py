from types import SimpleNamespace

import pytest

from difom_cache.errors import CacheIncompleteError, SettingsError
from difom_train import build_student
from difom_train.distill import Match, choose_teachers, logits_taps, match_bottleneck, match_levels, warn_of_matches
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


@pytest.fixture(scope="module")
def pranet():
    levels = {f"encoder{number}": Level(64, 2**number) for number in (1, 2, 3, 4)} | {"bottleneck": Level(2048, 32)}
    levels |= {
        "decoder1": Level(96, 8),
        "decoder2": Level(256, 32),
        "decoder3": Level(64, 16),
        "decoder4": Level(64, 8),
    }
    return SimpleNamespace(name="pranet", levels=levels)


def pairs_of(cache, student, input_px=352):
    """Return {level: [taps]} as `match_levels` has them."""
    pairs = {}
    for match in match_levels(
        cache, list(dict.fromkeys(name.partition("/")[0] for name in cache.taps)), student, input_px
    ):
        pairs.setdefault(match.level, []).append(match.tap)
    return pairs


def test_the_deepest_tap_of_each_teacher_meets_the_bottleneck_whatever_its_stride(unet):
    cache = hold(352, sam__neck=16, sam__block8=32, dinov2__block5=32, dinov2__block11=16)
    assert match_bottleneck(cache, ["sam", "dinov2"], unet, 352) == [
        Match("sam/neck@16", "bottleneck", 22),
        Match("dinov2/block11@16", "bottleneck", 22),
    ]


def test_a_tap_finer_than_the_bottleneck_is_pooled_to_it(pranet):
    cache = hold(352, sam__neck=16, sam__block8=32)
    assert match_bottleneck(cache, ["sam"], pranet, 352) == [Match("sam/neck@16", "bottleneck", 11)]


def test_the_loss_is_on_the_coarser_grid_when_the_student_sees_smaller_pictures(unet):
    cache = hold(352, sam__neck=16)
    assert match_bottleneck(cache, ["sam"], unet, 128) == [Match("sam/neck@16", "bottleneck", 8)]


def test_a_tap_of_the_same_grid_serves_where_no_stride_is_equal(unet):
    """A 128 px student taught: its bottleneck has 8 cells, which span 44 px of a 352 px picture."""
    cache = hold(352, student__bottleneck=44)
    assert match_bottleneck(cache, ["student"], unet, 128) == [Match("student/bottleneck@44", "bottleneck", 8)]


def test_a_teacher_of_logits_alone_is_left_out_beside_one_with_features_and_refused_alone(unet):
    cache = hold(352, sam__neck=16, probe__logits=8)
    assert match_bottleneck(cache, ["sam", "probe"], unet, 352) == [Match("sam/neck@16", "bottleneck", 22)]
    with pytest.raises(CacheIncompleteError, match=r"tap of probe for its bottleneck.*probe/logits@8 \(logits\)"):
        match_bottleneck(cache, ["probe"], unet, 352)


def test_taps_of_old_caches_which_lie_upside_down_meet_levels_in_order_of_depth(unet, pranet):
    """The last block was kept at stride 16 and the middle one at 32."""
    cache = hold(352, dinov2__block11=16, dinov2__block5=32)
    assert match_levels(cache, ["dinov2"], unet, 352) == [
        Match("dinov2/block11@16", "bottleneck", 22),
        Match("dinov2/block5@32", "encoder4", 11),
        Match("dinov2/block5@32", "decoder1", 11),
    ]
    assert pairs_of(cache, pranet) == {
        **{"bottleneck": ["dinov2/block11@16"], "decoder2": ["dinov2/block11@16"]},
        **{"encoder4": ["dinov2/block5@32"], "decoder3": ["dinov2/block5@32"]},
    }


def test_three_blocks_at_one_stride_teach_three_levels(unet, pranet):
    cache = hold(128, dinov2__block5=8, dinov2__block8=8, dinov2__block11=8)
    deep, middle, shallow = (f"dinov2/block{number}@8" for number in (11, 8, 5))
    assert pairs_of(cache, unet, 128) == {
        **{"bottleneck": [deep], "encoder4": [middle], "decoder1": [middle]},
        **{"encoder3": [shallow], "decoder2": [shallow]},
    }
    assert pairs_of(cache, pranet, 128) == {
        **{"bottleneck": [deep], "decoder2": [deep], "encoder4": [middle], "decoder3": [middle]},
        **{level: [shallow] for level in ("encoder3", "decoder1", "decoder4")},
    }


def test_keys_stand_beside_their_block_and_number_counts_not_spelling(unet):
    cache = hold(352, a__block9=16, a__block11=16, **{"a__block11.keys": 16})
    assert pairs_of(cache, unet) == {
        "bottleneck": ["a/block11@16", "a/block11.keys@16"],
        **{level: ["a/block9@16"] for level in ("encoder4", "decoder1")},
    }


def test_one_place_at_several_strides_keeps_the_order_of_these(unet):
    cache = hold(352, a__block11=8)
    cache.taps |= hold(352, a__block11=16).taps
    pairs = pairs_of(cache, unet)
    assert pairs["bottleneck"] == ["a/block11@16"] and pairs["encoder4"] == ["a/block11@8"]


def test_places_without_a_known_depth_are_ordered_by_stride(unet):
    cache = hold(352, a__x=8, a__y=16, b__z=32, a__logits=2)
    assert pairs_of(cache, unet) == {
        **{"bottleneck": ["a/y@16", "b/z@32"]},
        **{"encoder4": ["a/x@8"], "decoder1": ["a/x@8"]},
    }


def test_a_neck_is_deeper_than_blocks_and_maps_of_a_pyramid_go_by_their_own_stride(unet):
    deepest = {
        "sam/neck@16": hold(352, sam__block11=32, sam__neck=16),
        "sam2/stage4@16": hold(352, sam2__neck16=16, sam2__stage4=16),
        "mask2former/pixel32@16": hold(352, mask2former__pixel16=16, mask2former__pixel32=16),
        "hf/state12@16": hold(352, hf__state9=16, hf__state12=16),
    }
    for tap, cache in deepest.items():
        assert pairs_of(cache, unet)["bottleneck"] == [tap]


def test_more_taps_than_levels_are_spread_in_order_and_no_level_takes_all():
    two = SimpleNamespace(name="two", levels={"layer3": Level(8, 8), "bottleneck": Level(8, 16)})
    cache = hold(352, **{f"a__block{number}": 16 for number in range(4)})
    assert pairs_of(cache, two) == {
        "bottleneck": ["a/block3@16", "a/block2@16"],
        "layer3": ["a/block1@16", "a/block0@16"],
    }


def test_levels_of_one_stride_are_as_deep_as_they_come_late():
    """A dilated encoder: all of its last levels have the bottleneck's stride."""
    levels = {"encoder3": Level(8, 8), "encoder4": Level(8, 8), "bottleneck": Level(8, 8), "decoder1": Level(8, 4)}
    cache = hold(352, a__block1=8, a__block2=8, a__block3=8)
    student = SimpleNamespace(name="dilated", levels=levels)
    assert pairs_of(cache, student) == {
        **{"bottleneck": ["a/block3@8"], "encoder4": ["a/block2@8"], "encoder3": ["a/block1@8"]}
    }


def test_a_student_that_sees_smaller_pictures_changes_no_pair(unet):
    cache = hold(352, a__middle=16, a__deep=32)
    assert pairs_of(cache, unet, 96) == pairs_of(cache, unet, 352)
    assert match_levels(cache, ["a"], unet, 96)[0] == Match("a/deep@32", "bottleneck", 6)


def test_taps_of_another_student_are_matched_by_the_grids_that_they_share(unet):
    """Of the strides, 5.5 px is nearer to 4 than to 8; the grid is that of stride 2."""
    cache = hold(352, student__encoder2=5.5, student__bottleneck=44)  # taught at 128 px
    assert match_levels(cache, ["student"], unet, 128) == [
        Match("student/bottleneck@44", "bottleneck", 8),
        Match("student/encoder2@5.5", "encoder2", 64),
        Match("student/encoder2@5.5", "decoder3", 64),
    ]


def test_a_warning_says_where_one_level_takes_all_and_what_is_far_apart(unet):
    def warn(cache, student=unet):
        return warn_of_matches(cache, match_levels(cache, ["a", "b"], student, 352), student, 352)

    assert warn(hold(352, a__block11=16, a__block5=32)) == []
    assert warn(hold(352, a__block11=4)) == []  # a factor of four a side
    (far,) = warn(hold(352, a__block11=2))
    assert "a/block11@2 has 176 x 176 cells and bottleneck 22 x 22, more than 4 times as many" in far
    (all_in_one,) = warn(hold(352, a__block11=16, b__block11=16))
    assert "all 2 taps teach bottleneck" in all_in_one


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


DEFAULT_TAPS = {"sam": ("block8@16", "neck@32"), "dinov2": ("block5@16", "block11@32")}
DEFAULT_TAPS |= dict.fromkeys(("oneformer", "mask2former"), ("pixel16@16", "pixel32@32"))
TABLE = {  # of the default taps of every teacher: what the finer and shallower teaches, and what the coarser and deeper
    "unet": (["encoder4", "decoder1"], ["bottleneck"]),
    "unet++": (["encoder4", "decoder1"], ["bottleneck"]),
    "pranet": (["encoder4", "decoder3"], ["bottleneck", "decoder2"]),
    "smp:unet/timm-tf_efficientnet_lite0": (["encoder4"], ["bottleneck"]),
}


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
@pytest.mark.parametrize("name", TABLE)
def test_by_default_taps_the_deepest_meets_the_bottleneck_in_each_student(name):
    kept = [(teacher, *tap.split("@")) for teacher, own in DEFAULT_TAPS.items() for tap in own]
    cache = hold(352, **{f"{teacher}__{place}": int(stride) for teacher, place, stride in kept})
    assert pairs_of(cache, build_student(name, weights="random")) == {
        level: [f"{teacher}/{own[which]}" for teacher, own in DEFAULT_TAPS.items()]
        for which in (0, 1)
        for level in TABLE[name][which]
    }
