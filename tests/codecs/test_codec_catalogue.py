import pytest
import torch
from compact_basis import fit_compact

from difom_cache.codecs import CODECS, build_codec, fit_packed, resolve_codec
from difom_cache.errors import CodecError, SettingsError

FIT = {"compact": fit_compact, "packed": fit_packed}


@pytest.mark.parametrize(("channels", "falls_back"), [(127, True), (128, False)])
@pytest.mark.parametrize("asked", ["compact", "packed"])
def test_a_codec_with_directions_falls_back_to_int8_below_128_channels(asked, channels, falls_back):
    given = "int8" if falls_back else asked
    assert resolve_codec(asked, channels) == given
    basis = FIT[asked]([torch.randn(4, channels, 8, 8)])
    assert build_codec(asked, channels, basis=basis).name == given


def test_every_codec_is_built_under_its_name():
    bases = {name: fit([torch.randn(4, 128, 8, 8)]) for name, fit in FIT.items()}
    built = {name: build_codec(name, 128, basis=bases.get(name)).name for name in CODECS}
    assert built == {name: name for name in CODECS}
    with pytest.raises(CodecError, match="packed needs a basis of its own, found a CompactBasis"):
        build_codec("packed", 128, basis=bases["compact"])


def test_compact_takes_at_most_two_fifths_of_the_bytes_of_int8():
    basis = fit_compact([torch.randn(5, 256, 8, 8)])
    compact, int8 = (build_codec(name, 256, basis=basis) for name in ("compact", "int8"))
    sizes = []
    for codec in (compact, int8):
        code, scale = codec.encode(torch.randn(1, 256, 22, 22))
        sizes.append(code.numel() + 4 * scale.numel())
    assert sizes == [96 * 484 + 4 * 96, 256 * 484 + 4 * 256]
    assert sizes[0] <= 0.4 * sizes[1]


def test_an_unknown_codec_is_named_with_its_nearest():
    with pytest.raises(SettingsError, match="did you mean 'int8'"):
        build_codec("int9", 256)


def test_compact_without_a_basis_or_with_anothers_is_refused():
    with pytest.raises(CodecError, match="principal directions of its tap of 256"):
        build_codec("compact", 256)
    with pytest.raises(CodecError, match="for 128 channels, not for 256"):
        build_codec("compact", 256, basis=fit_compact([torch.randn(4, 128, 8, 8)]))
