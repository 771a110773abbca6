import numpy as np
import pytest
import torch

from difom_cache.codecs import Float16Codec
from difom_cache.errors import CodecError


def test_values_that_half_precision_holds_come_back_exactly():
    feature = torch.tensor([0.0, -1.5, 65504.0, 2.0**-24]).view(1, 4, 1, 1)
    code, scale = Float16Codec().encode(feature)
    assert code.dtype == torch.float16 and scale is None
    assert torch.equal(Float16Codec().decode(code, None), feature)


def test_error_is_at_most_half_a_unit_in_the_last_place():
    feature = torch.linspace(-60000, 60000, 12_001).view(1, 1, 1, -1)
    code, _ = Float16Codec().encode(feature)
    error = (Float16Codec().decode(code, None) - feature).abs()
    assert (error <= (feature.abs() * 2.0**-11).clamp_min(2.0**-25)).all()
    assert error.max() > 10  # 1 in 2048 of about 30000 and more: the bound is not idle


@pytest.mark.parametrize("value", [70000.0, -1e30, float("inf"), float("nan")])
def test_a_value_beyond_the_range_is_refused_by_its_row_and_channel(value):
    feature = torch.zeros(3, 5, 2, 2)
    feature[1, 4, 1, 0] = value
    with pytest.raises(CodecError, match=r"picture 1 of the batch, channel 4.*65504") as caught:
        Float16Codec().encode(feature)
    assert (caught.value.row, caught.value.channel) == (1, 4)


def test_a_scale_beside_the_code_is_refused():
    with pytest.raises(CodecError, match="no scale"):
        Float16Codec().decode(np.zeros((1, 2, 1, 1), np.float16), np.ones((1, 2), np.float32))
