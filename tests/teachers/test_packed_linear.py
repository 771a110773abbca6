import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from difom_cache import build_teacher
from difom_cache.teachers import PackedLinear, Precision, can_pack, count_flops, pack_linears

pytestmark = pytest.mark.skipif(not can_pack(), reason="oneDNN's linear layers need an x86 processor")


class OwnLinear(nn.Linear):
    """Whatever a library makes of a linear layer."""


def build_network() -> nn.Module:
    shared = nn.Linear(8, 8)
    return nn.ModuleDict(
        {
            "plain": nn.Sequential(nn.Linear(8, 6), nn.ReLU()),
            "one": shared,
            "other": shared,
            "own": OwnLinear(8, 6),
            "rounded": nn.Linear(8, 6).to(torch.bfloat16),
            "attention": nn.MultiheadAttention(8, 2),
        }
    ).requires_grad_(False)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(384,), (3, 384), (2, 5, 384), (2, 3, 4, 384), (0, 384)])
@torch.no_grad()
def test_a_packed_layer_gives_what_the_layer_does(shape: tuple[int, ...], bias: bool) -> None:
    linear = nn.Linear(384, 40, bias=bias)
    features = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    packed = PackedLinear(linear)(features)
    exact = linear.double()(features.double())
    assert packed.dtype == torch.float32 and packed.layout == torch.strided
    torch.testing.assert_close(packed.double(), exact, atol=5e-6, rtol=0)


@torch.no_grad()
def test_a_packed_layer_reads_strided_features() -> None:
    linear = nn.Linear(32, 40)
    features = torch.randn(2, 32, 7, generator=torch.Generator().manual_seed(1)).transpose(1, 2)
    torch.testing.assert_close(PackedLinear(linear)(features), linear(features), atol=1e-5, rtol=0)


def test_only_plain_layers_in_float32_are_packed_and_shared_ones_stay_shared() -> None:
    network = build_network()
    pack_linears(network)
    packed = {name for name, module in network.named_modules(remove_duplicate=False) if type(module) is PackedLinear}
    assert packed == {"plain.0", "one", "other"} and network["one"] is network["other"]


def test_a_packed_layer_keeps_its_shape_type_and_number_of_parameters() -> None:
    network = build_network()
    before = {name: (value.shape, value.dtype, value.requires_grad) for name, value in network.named_parameters()}
    pack_linears(network)
    assert before == {name: (p.shape, p.dtype, p.requires_grad) for name, p in network.named_parameters()}


def test_packed_layers_are_counted() -> None:
    linear = nn.Linear(8, 6)
    with FlopCounterMode(display=False, custom_mapping=count_flops()) as counter:
        PackedLinear(linear)(torch.zeros(2, 5, 8))
    assert counter.get_total_flops() == 2 * 2 * 5 * 8 * 6


@pytest.mark.parametrize("teacher", ["sam:tiny", "dinov2:tiny", "mask2former:tiny"])
def test_teachers_are_packed_in_float32_alone_once_features_are_asked_for(teacher: str) -> None:
    def count(precision: Precision) -> tuple[int, int]:
        built = build_teacher(teacher, weights="random", precision=precision)
        before = sum(type(module) is PackedLinear for module in built.network.modules())
        built.features(torch.zeros(1, 3, built.spec.input_px, built.spec.input_px))
        return before, sum(type(module) is PackedLinear for module in built.network.modules())

    before, after = count("float32")
    assert before == 0 < after, "before, another backend may make a graph of the network as it is"
    assert count("bfloat16") == (0, 0)
