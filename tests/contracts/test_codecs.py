"""What every codec promises; a new codec adds a line to `CASES`."""

import json
from typing import get_args

import numpy as np
import pytest
import torch
from compact_basis import fit_compact

from difom_cache.base.options import CodecName
from difom_cache.codecs import CODECS, UncodableFeatureError, build_codec, fit_packed, measure_fidelity

CHANNELS = 160
CASES = {"float16": 0.99999, "int8": 0.999, "compact": 0.97, "packed": 0.95}
"""Codec: the mean cosine that it keeps on smooth maps."""


def smooth_maps(count: int, seed: int = 0) -> torch.Tensor:
    """Return (count, 160, 9, 9) maps whose channels have few causes, as a teacher's have, about means unlike zero."""
    own = torch.Generator().manual_seed(seed)
    causes = torch.randn(count, CHANNELS, 9, 9, generator=own)
    mixing = (
        torch.randn(CHANNELS, CHANNELS, generator=torch.Generator().manual_seed(99))
        * torch.linspace(1, 0, CHANNELS).square()
    )
    return torch.einsum("dc,bchw->bdhw", mixing, causes) + torch.linspace(-5, 5, CHANNELS)[:, None, None]


@pytest.fixture(scope="module")
def bases():
    sample = [smooth_maps(12, seed=7)]
    return {"compact": fit_compact(sample), "packed": fit_packed(sample)}


@pytest.fixture(params=CASES)
def codec(request, bases):
    return build_codec(request.param, CHANNELS, basis=bases.get(request.param))


def test_the_cases_are_all_codecs():
    assert set(CASES) == set(CODECS) == set(get_args(CodecName)), "what is tested, is there, and may be asked for"


def test_shapes_and_types_are_as_the_codec_says(codec):
    code, scale = codec.encode(smooth_maps(3))
    assert code.shape == (3, codec.code_channels(CHANNELS), 9, 9)
    assert code.numpy().dtype == np.dtype(codec.code_dtype)
    assert (scale is not None) == codec.has_scale
    if scale is not None:
        assert scale.shape == (3, codec.scale_channels(CHANNELS)) and scale.dtype == torch.float32
        sizes = scale[:, -1:] if codec.name == "packed" else scale  # the rest of which are means
        assert (sizes > 0).all()


def test_arrays_decode_to_what_tensors_decode_to(codec):
    code, scale = codec.encode(smooth_maps(3))
    target = codec.decode(code, scale)
    from_arrays = codec.decode(code.numpy(), None if scale is None else scale.numpy())
    assert target.dtype == torch.float32 and from_arrays.dtype == np.float32
    assert target.shape == (3, CHANNELS, 9, 9)
    np.testing.assert_allclose(from_arrays, target.numpy(), rtol=1e-5, atol=1e-4)


def test_a_code_depends_on_its_own_picture_only_bit_for_bit(codec):
    feature = smooth_maps(5)
    together, scales = codec.encode(feature)
    alone, scale = codec.encode(feature[3:4])
    among_others, _ = codec.encode(torch.cat([feature[3:4] * 0, feature[3:4], feature[:2] * 1e3]))
    assert torch.equal(alone[0], together[3]) and torch.equal(alone[0], among_others[1])
    assert scale is None or torch.equal(scale[0], scales[3])


def test_codes_keep_the_cosine(codec):
    feature = smooth_maps(4)
    fidelity = measure_fidelity(feature, codec.decode(*codec.encode(feature)), torch.ones(4, 9, 9, dtype=torch.bool))
    assert fidelity.mean_cosine >= CASES[codec.name]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("late", [False, True])
def test_what_cannot_be_coded_names_its_row_at_once_or_when_checked(codec, value, late):
    feature = smooth_maps(4)
    feature[2, 11, 4, 4] = value
    with pytest.raises(UncodableFeatureError) as caught:
        if late:
            code, scale = codec.encode(feature, check=False)
            codec.check_code(code.numpy(), None if scale is None else scale.numpy())
        else:
            codec.encode(feature)
    assert caught.value.row == 2


def test_identity_is_json_and_names_the_codec(codec, request):
    asked = request.node.callspec.params["codec"]
    assert json.loads(json.dumps(codec.identity()))["name"] == codec.name == asked


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_codes_of_the_gpu_stay_there_and_stand_for_the_same_feature(codec):
    feature = smooth_maps(3)
    code, scale = codec.encode(feature.cuda())
    target = codec.decode(code, scale)
    assert code.is_cuda and target.is_cuda
    torch.testing.assert_close(target.cpu(), codec.decode(*codec.encode(feature)), rtol=0.01, atol=0.2)
