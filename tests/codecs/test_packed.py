from itertools import product

import numpy as np
import pytest
import torch

from difom_cache.codecs import PackedBasis, PackedCodec, fit_packed, measure_fidelity
from difom_cache.errors import CodecError


def fading_maps(channels: int, count: int = 8, seed: int = 0) -> torch.Tensor:
    """Return (count, channels, 11, 11) maps whose directions fade out slowly, each picture about a mean of its own."""
    own, shared = (torch.Generator().manual_seed(each) for each in (seed + 1, 99))
    causes = torch.randn(count, channels, 121, generator=own) * torch.linspace(0, -4, channels).exp()[:, None]
    turned = torch.linalg.qr(torch.randn(channels, channels, generator=shared))[0] @ causes
    means = 3 * torch.randn(count, channels, 1, generator=own)
    return (turned + means).reshape(count, channels, 11, 11)


def hand_made() -> PackedBasis:
    """Return a basis of 11 of 12 channels: one of 8 bits, two of 4, and eight of 1, each direction a channel."""
    bits = np.array([8, 4, 4, *[1] * 8], np.uint8)
    steps = np.array([0.1, 0.5, 0.5, *[2.0] * 8], np.float32)
    return PackedBasis(np.eye(12, 11, dtype=np.float32), steps, bits, 1.0)


def test_levels_are_packed_lowest_bits_first_by_hand():
    codec, feature = PackedCodec(hand_made()), torch.zeros(1, 12, 1, 2)
    # Two cells a and -a, so the mean is 0 and the size is the root mean square of a.
    a = torch.tensor([2.0, 1, -3, 1, -1, 1, 1, -1, -1, 1, -1, 0])
    feature[0, :, 0, 0], feature[0, :, 0, 1] = a, -a
    size = float(a.square().mean().sqrt())  # sqrt(22 / 12) = 1.354
    code, scale = codec.encode(feature + 5)
    torch.testing.assert_close(scale[0], torch.tensor([5.0] * 12 + [size]))
    first = code[0, :, 0, 0].tolist()
    # 2 / 1.354 / .1 = 14.8: level 14 of -128 to 127. 1 / 1.354 / .5 = 1.5 and -4.4: levels 1 and -5 of -8 to 7.
    assert first == [14 + 128, (1 + 8) + 16 * (-5 + 8), 0b01001101]
    # A level stands for its middle.
    decoded = (codec.decode(code, scale) - 5)[0, :, 0, 0] / size
    expected = [1.45, 0.75, -2.25, 1, -1, 1, 1, -1, -1, 1, -1, 0]
    torch.testing.assert_close(decoded, torch.tensor(expected), atol=1e-5, rtol=0)


def test_what_lies_beyond_the_outermost_level_becomes_it():
    codec, feature = PackedCodec(hand_made()), torch.zeros(1, 12, 10, 10)
    feature[0, 1, 0, 0], feature[0, 1, 0, 1] = 1000, -1000
    code, scale = codec.encode(feature)
    assert [code[0, 1, 0, place].item() & 15 for place in (0, 1)] == [15, 0]
    decoded = codec.decode(code, scale)
    assert float(decoded[0, 1, 0, 0]) == pytest.approx(3.75 * float(scale[0, 12]), rel=1e-4)


def test_inside_the_levels_a_coordinate_is_at_most_half_a_step_away():
    basis = fit_packed([fading_maps(160)])
    codec, feature = PackedCodec(basis), fading_maps(160, seed=3)
    code, scale = codec.encode(feature)
    towards = torch.from_numpy(basis.directions).T
    size = scale[:, -1, None, None]
    live, told = (towards @ (x.flatten(2) - scale[:, :-1, None]) / size for x in (feature, codec.decode(code, scale)))
    step, reach = torch.from_numpy(basis.steps)[:, None], 2.0 ** (torch.from_numpy(basis.bits) - 1.0)[:, None]
    inside = live.abs() < step * reach
    assert inside.float().mean() > 0.9
    assert ((live - told).abs() / step)[inside].max() < 0.501


def test_a_cell_has_nine_eighths_of_a_bit_a_channel():
    codec = PackedCodec(fit_packed([fading_maps(256)]))
    code, scale = codec.encode(torch.randn(1, 256, 22, 22))
    assert code.dtype == torch.uint8 and code.shape == (1, 36, 22, 22) and scale.shape == (1, 257)
    int8_bytes = 256 * 484 + 4 * 256
    assert (code.numel() + 4 * scale.numel()) / int8_bytes < 0.15


def test_the_error_is_at_most_twice_the_least_that_so_many_bits_can_have():
    # Shannon's bound for independent Gaussians of these variances (Cover and Thomas, theorem 10.3.3): reverse water-filling.
    variance = np.exp(np.linspace(0, -8, 256))
    level = variance[np.cumsum(0.5 * np.log2(variance)) - 0.5 * np.log2(variance) * np.arange(1, 257) < 9 / 8 * 256][-1]
    least = np.minimum(variance, level).sum() / variance.sum()
    assert 0.03 < least < 0.05
    codec, live = PackedCodec(fit_packed([fading_maps(256, count=24)])), fading_maps(256, seed=5)
    fidelity = measure_fidelity(live, codec.decode(*codec.encode(live)), torch.ones(8, 11, 11, dtype=torch.bool))
    assert least < 1 - fidelity.kept_variance < 2 * least


def test_a_picture_of_little_contrast_is_told_as_well_as_one_of_much():
    codec, feature = PackedCodec(fit_packed([fading_maps(160)])), fading_maps(160, seed=2)
    mean = feature.mean((2, 3), keepdim=True)
    faint = mean + (feature - mean) / 16
    code, scale = codec.encode(feature)
    assert float((codec.encode(faint)[0] != code).float().mean()) < 1e-3  # but for rounding at an edge
    torch.testing.assert_close(codec.decode(code, scale).mean((2, 3)), feature.mean((2, 3)), atol=0.15, rtol=0)


def test_a_picture_that_is_the_same_everywhere_comes_back_as_it_is():
    codec, feature = PackedCodec(fit_packed([fading_maps(160)])), torch.linspace(-2, 2, 160)[None, :, None, None]
    even = feature.expand(2, 160, 3, 3).contiguous()
    torch.testing.assert_close(codec.decode(*codec.encode(even)), even, atol=1e-6, rtol=0)


def test_bytes_are_shared_out_with_the_least_error_that_there_is():
    rng = np.random.default_rng(0)
    basis = fit_packed([fading_maps(128)])
    assert basis.code_bytes == 18
    # All other ways to fill 18 bytes, judged by codes of the sample itself, are no better.
    sample = fading_maps(128)

    def loss(counts: tuple[int, ...]) -> float:
        bits = np.repeat(np.array([8, 4, 2, 1], np.uint8), counts)
        steps = np.array([{8: 0.035, 4: 0.34, 2: 1.0, 1: 1.6}[b] for b in bits.tolist()], np.float32)
        codec = PackedCodec(PackedBasis(wide[:, : len(bits)], steps * deviation[: len(bits)], bits, 1.0))
        return float((codec.decode(*codec.encode(sample)) - sample).square().sum())

    centred = sample.flatten(2) - sample.flatten(2).mean(2, keepdim=True)
    centred = centred / centred.square().mean((1, 2), keepdim=True).sqrt()
    cells = centred.transpose(0, 1).flatten(1).numpy()
    variance, directions = np.linalg.eigh(cells @ cells.T / cells.shape[1])
    wide, deviation = directions[:, ::-1].copy(), np.sqrt(variance[::-1]).clip(1e-9)
    ours = float((PackedCodec(basis).decode(*PackedCodec(basis).encode(sample)) - sample).square().sum())
    ways = [(e, 2 * f, 4 * t, 8 * (18 - e - f - t)) for e, f, t in product(range(19), repeat=3) if e + f + t <= 18]
    for place in rng.choice(len(ways), 60, replace=False):
        if sum(ways[place]) <= 128:
            assert ours <= 1.02 * loss(ways[place]), ways[place]


def test_features_of_few_directions_are_told_by_wide_ones():
    mixing = torch.randn(160, 3, generator=torch.Generator().manual_seed(4))
    feature = torch.einsum("ck,bkhw->bchw", mixing, torch.randn(8, 3, 11, 11))
    codec = PackedCodec(fit_packed([feature]))
    fidelity = measure_fidelity(feature, codec.decode(*codec.encode(feature)), torch.ones(8, 11, 11, dtype=torch.bool))
    assert fidelity.mean_cosine > 0.999


def test_the_basis_does_not_depend_on_how_the_sample_is_cut_into_batches():
    feature = fading_maps(128)
    assert fit_packed([feature]).digest == fit_packed([feature[:1], feature[1:4], feature[4:]]).digest


def test_the_digest_covers_directions_steps_and_bits():
    basis = hand_made()
    twice = PackedBasis(basis.directions, basis.steps * 2, basis.bits, 1.0)
    wider = PackedBasis(basis.directions, basis.steps, np.array([8, 8, 8, *[1] * 8], np.uint8), 1.0)
    assert len({basis.digest, twice.digest, wider.digest}) == 3
    assert PackedBasis(basis.directions, basis.steps, basis.bits, 0.5).digest == basis.digest
    stored = {name: values for name, (values, _) in basis.arrays().items()}
    assert PackedBasis.from_arrays(stored).digest == basis.digest


@pytest.mark.parametrize(
    ("bits", "message"),
    [
        ([1] * 8 + [8, 4, 4], "widest first"),
        ([8, 4, *[1] * 9], "fills whole bytes with each width, found .1, 1, 0, 9."),
        ([8, 3, 3, *[1] * 8], "widest first; found"),
    ],
)
def test_a_basis_that_cannot_be_is_refused(bits, message):
    basis = hand_made()
    with pytest.raises(CodecError, match=message):
        PackedBasis(basis.directions, basis.steps, np.array(bits, np.uint8), 1.0)


def test_too_small_a_sample_is_refused():
    with pytest.raises(CodecError, match="more positions than the 256 channels to fit its basis, found 242"):
        fit_packed([torch.randn(2, 256, 11, 11)])
    broken = fading_maps(128)
    broken[0, 5, 1, 1] = float("nan")
    with pytest.raises(CodecError, match="NaN or infinity"):
        fit_packed([broken])


def test_a_code_and_a_scale_of_another_tap_are_refused():
    codec = PackedCodec(fit_packed([fading_maps(128)]))
    code, scale = codec.encode(fading_maps(128))
    with pytest.raises(CodecError, match="18 bytes a cell and scales of 129 numbers, found a code of shape"):
        codec.decode(code[:, :17], scale)
    with pytest.raises(CodecError, match="expected a scale beside the code"):
        codec.decode(code, None)
    with pytest.raises(CodecError, match="code is a ndarray but scale a Tensor"):
        codec.decode(code.numpy(), scale)
    with pytest.raises(CodecError, match="for 128 channels, not for 160"):
        codec.code_channels(160)
