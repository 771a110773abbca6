import pytest
import torch

from difom_cache.errors import TeacherError
from difom_cache.teachers import check_input_px, check_pixels, normalise


def test_normalising_takes_off_the_mean_and_divides_by_the_std_channel_by_channel():
    pixels = torch.tensor([1.0, 0.5, 0.0]).view(1, 3, 1, 1)
    found = normalise(pixels, (0.5, 0.5, 0.5), (0.5, 0.25, 0.1)).flatten()
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0, -5.0]))


def test_pixels_of_another_size_or_type_are_refused():
    check_pixels(torch.rand(2, 3, 8, 8), 8)
    for wrong in (torch.rand(2, 3, 8, 9), torch.rand(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(TeacherError, match=r"expected floating-point pixels of shape \(B, 3, 8, 8\)"):
            check_pixels(wrong, 8)


@pytest.mark.parametrize(("px", "nearest"), [(620, 616), (5, 14), (629, 630)])
def test_an_input_that_is_no_multiple_names_the_nearest_that_is(px, nearest):
    with pytest.raises(TeacherError, match=f"dinov2:base@{nearest}"):
        check_input_px(px, 14, "dinov2:base")
    check_input_px(nearest, 14, "dinov2:base")
