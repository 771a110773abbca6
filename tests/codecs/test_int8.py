import numpy as np
import pytest
import torch

from difom_cache.codecs import Int8Codec
from difom_cache.errors import CodecError


def test_codes_are_steps_of_the_largest_magnitude_over_127():
    feature = torch.tensor([[[[-254.0, 3.0], [0.9, 127.0]]]])  # scale 254 / 127 = 2
    code, scale = Int8Codec().encode(feature)
    assert scale.tolist() == [[2.0]]
    assert code.tolist() == [[[[-127, 2], [0, 64]]]]  # 1.5 and 63.5 go to the even neighbour
    assert Int8Codec().decode(code, scale).tolist() == [[[[-254.0, 4.0], [0.0, 128.0]]]]


def test_each_picture_and_channel_has_its_own_scale():
    feature = torch.ones(2, 2, 1, 2) * torch.tensor([[1.0, 10.0], [100.0, 1000.0]])[:, :, None, None]
    _, scale = Int8Codec().encode(feature)
    torch.testing.assert_close(scale * 127, torch.tensor([[1.0, 10.0], [100.0, 1000.0]]))


def test_error_is_at_most_half_a_scale():
    feature = torch.randn(4, 6, 9, 7, generator=torch.Generator().manual_seed(0)) * 1e3
    code, scale = Int8Codec().encode(feature)
    error = (Int8Codec().decode(code, scale) - feature).abs() / scale[:, :, None, None]
    assert 0.4 < error.max() <= 0.5001


@pytest.mark.parametrize("largest", [0.0, 1e-44, 1e-38, 3e38])
def test_zeros_and_extreme_channels_keep_the_bound(largest):
    feature = torch.zeros(1, 2, 2, 2)
    feature[0, 1, 0, 0] = largest
    code, scale = Int8Codec().encode(feature)
    target = Int8Codec().decode(code, scale)
    assert (scale > 0).all() and torch.isfinite(target).all()
    assert torch.equal(target[0, 0], torch.zeros(2, 2))
    assert abs(float(target[0, 1, 0, 0]) - largest) <= 0.5001 * float(scale[0, 1])


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_by_its_row_and_channel(value):
    feature = torch.randn(3, 4, 2, 2)
    feature[2, 1, 0, 1] = value
    with pytest.raises(CodecError, match="picture 2 of the batch, channel 1") as caught:
        Int8Codec().encode(feature)
    assert (caught.value.row, caught.value.channel) == (2, 1)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        (None, "found none"),
        (np.ones((1, 3), np.float32), r"\(2, 3\), found \(1, 3\)"),
        (torch.ones(2, 3), "Tensor"),
    ],
)
def test_a_scale_of_another_code_is_refused(scale, message):
    with pytest.raises(CodecError, match=message):
        Int8Codec().decode(np.zeros((2, 3, 4, 4), np.int8), scale)
