import numpy as np
import pytest

from difom_cache import ViewParams
from difom_cache.errors import CacheFormatError, SettingsError
from difom_cache.views import COLUMNS


def test_params_survive_their_row():
    params = ViewParams(1, 2, 300, 400, 1, 0, 3, -14_999, 1, 50, -60, 70, -80)
    row = params.to_row()
    assert row.dtype == np.int32 and row.tolist() == [1, 2, 300, 400, 1, 0, 3, -14999, 1, 50, -60, 70, -80]
    assert ViewParams.from_row(row) == params


def test_the_columns_are_the_format():
    # The order stands in every cache: to change it is to change REPLAY_VERSION.
    assert COLUMNS == (
        "top",
        "left",
        "height",
        "width",
        "flip_h",
        "flip_v",
        "quarter_turns",
        "angle_mdeg",
        "pad",
        "brightness_permille",
        "contrast_permille",
        "saturation_permille",
        "hue_permille",
    )


def test_a_row_of_another_format_is_refused():
    with pytest.raises(CacheFormatError, match=r"has 13 numbers .*, found 12"):
        ViewParams.from_row(np.zeros(12, np.int32))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 0}, r"height = 0 \(expected 1 to"),
        ({"top": -1}, "top = -1"),
        ({"flip_h": 2}, r"flip_h = 2 \(expected 0 to 1\)"),
        ({"quarter_turns": 4}, "quarter_turns = 4"),
        ({"angle_mdeg": 90_000}, "angle_mdeg = 90000"),
    ],
)
def test_numbers_outside_their_range_are_refused(change, message):
    with pytest.raises(SettingsError, match=message):
        ViewParams(**({"top": 0, "left": 0, "height": 5, "width": 5} | change))


def test_only_padded_rotation_leaves_pixels_without_picture():
    assert ViewParams(0, 0, 5, 5, angle_mdeg=1000).wholly_valid
    assert ViewParams(0, 0, 5, 5, pad=1).wholly_valid
    assert not ViewParams(0, 0, 5, 5, angle_mdeg=1000, pad=1).wholly_valid
