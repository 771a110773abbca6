"""A module of any kind becomes a student, or is refused with what is wrong about it."""

import copy

import pytest
import torch
from strange_students import LEVELS, Small
from torch import nn

from difom_cache.errors import SettingsError
from difom_train import wrap_student
from difom_train.students import BOTTLENECK, Level

PICTURES = torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(0))


def test_levels_are_the_modules_own_maps_and_the_deepest_is_the_bottleneck():
    network = Small()
    student = wrap_student(network, LEVELS)
    assert student.name == "Small"
    assert student.levels == {"backbone.2": Level(6, 4), BOTTLENECK: Level(8, 8)}
    student.eval()
    output = student.forward_train(PICTURES)
    expected = network.backbone[:3](student.normalise(PICTURES))
    assert torch.equal(output.levels["backbone.2"], expected)
    assert torch.equal(output.levels[BOTTLENECK], network.backbone[4](network.backbone[3](expected)))


@pytest.mark.parametrize(("form", "outputs"), [("tensor", 1), ("dict", 2), ("tuple", 2), ("named", 1)])
def test_logits_come_out_of_any_wrapping_at_the_size_of_the_picture(form, outputs):
    torch.manual_seed(0)
    network = Small(form)
    student = wrap_student(network, LEVELS).eval()
    output = student.forward_train(PICTURES)
    assert [tuple(each.shape) for each in output.logits] == [(2, 1, 32, 48)] * outputs
    network.form = "tensor"
    own = nn.functional.interpolate(network(student.normalise(PICTURES)), (32, 48), mode="bilinear")
    torch.testing.assert_close(student(PICTURES), own)


def test_two_classes_give_the_probability_that_their_softmax_gives():
    network = Small(classes=2)
    student = wrap_student(network, LEVELS).eval()
    soft = network(student.normalise(PICTURES)).softmax(1)[:, 1:]
    small = wrap_student(copy.deepcopy(network), LEVELS).eval()
    small._resizes = [False]  # the sigmoid of a resized difference is not the resized softmax
    torch.testing.assert_close(small(PICTURES).sigmoid(), soft)


def test_the_module_is_as_it_was_after_the_dry_pass():
    network = Small().train()
    network.backbone[1].eval()
    before = copy.deepcopy(network.state_dict())
    wrap_student(network, LEVELS)
    assert network.training and network.head.training and not network.backbone[1].training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert sum(len(module._forward_hooks) for module in network.modules()) == len(LEVELS)


def test_the_neck_stands_at_the_bottleneck_and_reaches_the_logits():
    torch.manual_seed(0)
    student = wrap_student(Small(), LEVELS, neck="difom").eval()
    output = student.forward_train(PICTURES)
    assert {name: tuple(each.shape) for name, each in output.neck.items()} == {
        "z1": (2, 256, 4, 6),
        "z2": (2, 256, 4, 6),
    }
    output.logits[0].sum().backward()
    assert student.neck.low.weight.grad.abs().sum() > 0 and student.widen.weight.grad.abs().sum() > 0
    plain = copy.deepcopy(student)
    plain.neck.low.weight.data.zero_()
    assert torch.equal(plain.forward_train(PICTURES).levels[BOTTLENECK], output.levels[BOTTLENECK])
    assert not torch.equal(plain(PICTURES), student(PICTURES))


def test_the_encoder_is_what_has_run_once_the_bottleneck_is_there():
    student = wrap_student(Small(), LEVELS)
    frozen = {id(each) for part in student.encoder_modules() for each in part.parameters()}
    names = {name.split(".")[1] for name, each in student.named_parameters() if id(each) in frozen}
    assert names == {"backbone"}
    assert {name.split(".")[1] for name, each in student.named_parameters() if id(each) not in frozen} == {
        "head",
        "side",
    }


def test_a_copy_reads_its_own_module():
    student = wrap_student(Small(), LEVELS).eval()
    other = copy.deepcopy(student)
    other.network.backbone[0].weight.data.zero_()
    assert student.forward_train(PICTURES).levels[BOTTLENECK].abs().sum() > 0
    assert not torch.equal(other(PICTURES), student(PICTURES))


def test_a_module_belongs_to_the_last_student_that_wrapped_it():
    network = Small()
    first, second = wrap_student(network, LEVELS, neck="difom"), wrap_student(network, {"backbone.2": 4})
    assert set(second.forward_train(PICTURES).levels) == {BOTTLENECK}
    with pytest.raises(SettingsError, match=r"level 'backbone\.2' was not run .* wrapped again"):
        first.forward_train(PICTURES)


class Odd(nn.Module):
    """What a level may not be: run twice, written into, no map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 4, 4)
        self.act = nn.ReLU(inplace=True)
        self.pair = nn.LSTM(3, 3)
        self.same = nn.Identity()

    def forward(self, pixels):
        out = self.same(self.same(self.act(self.conv(pixels))))
        self.pair(out.flatten(2).permute(2, 0, 1))
        return out[:, :1]


@pytest.mark.parametrize(
    ("network", "levels", "options", "message"),
    [
        (Small, {}, {}, "levels are module names with strides in px, such as .*; found none"),
        (Small, {"head": "8"}, {}, "found 'head': '8'"),
        (Small, {"backbone.22": 4}, {}, r"no module 'backbone\.22'; did you mean 'backbone\.2'"),
        (Small, {"backbone.2": 8}, {}, r"64 x 64 cells for 256 px, not those of stride 8; its stride is 4"),
        (Small, LEVELS, {"input_px": 100}, "a multiple of 8, the largest stride, up to 4096; found 100"),
        (Small, LEVELS, {"std": (1, 1)}, "std is three numbers, one a channel, none 0"),
        (lambda: Small("none"), LEVELS, {}, "a dict of mask; expected its logits under out or logits"),
        (lambda: Small("flat"), LEVELS, {}, r"Small returns a tensor \(1, 4096\); expected logits \(B, 1, h, w\)"),
        (lambda: Small(classes=21), LEVELS, {}, "logits of 21 classes; build it with one"),
        (Odd, {"same": 4}, {}, "'same' runs 2 times in a forward pass"),
        (Odd, {"pair": 4}, {}, r"level 'pair' gives a tuple; expected a map \(B, C, h, w\)"),
        (Odd, {"conv": 4}, {}, "writes into its output"),
        (lambda: nn.Sequential(nn.Flatten(), nn.Linear(3, 1)), {"1": 4}, {}, "fails on a picture of 256 x 256 px"),
    ],
)
def test_what_cannot_be_a_student_is_refused_in_one_line(network, levels, options, message):
    with pytest.raises(SettingsError, match=message) as refused:
        wrap_student(network(), levels, **options)
    assert "\n" not in str(refused.value)


def drawn_by_hand() -> nn.Module:
    """A U-Net as people write it, with a gate of one channel that makes no logits of the network."""

    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enc1, self.enc2, self.enc3 = (nn.Conv2d(a, b, 3, 1, 1) for a, b in ((3, 4), (4, 6), (6, 8)))
            self.middle = nn.Sequential(nn.Conv2d(8, 12, 3, 1, 1), nn.ReLU(inplace=True))
            self.pool, self.dec3, self.last = nn.MaxPool2d(2), nn.Conv2d(20, 8, 1), nn.Conv2d(8, 1, 1)

        def forward(self, x):
            one = self.enc1(x)
            two = self.enc2(self.pool(self.pool(one)))
            three = self.enc3(self.pool(two))
            deep = nn.functional.interpolate(self.middle(self.pool(three)), scale_factor=2)
            return self.last(self.dec3(torch.cat([deep, three], 1)))

    return Drawn()


def torchvision_network() -> nn.Module:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    return lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=1)


def smp_network() -> nn.Module:
    library = pytest.importorskip("segmentation_models_pytorch")
    return library.Unet("resnet18", encoder_weights=None)


@pytest.mark.parametrize(
    ("make", "levels"),
    [
        (drawn_by_hand, {"enc2": 4, "enc3": 8, "middle": 16}),
        (torchvision_network, {"backbone.3": 4, "backbone.6": 8, "backbone.16": 16}),
        (smp_network, {"encoder.layer1": 4, "encoder.layer2": 8, "encoder.layer3": 16, "encoder.layer4": 32}),
    ],
)
def test_levels_are_found_as_the_networks_author_draws_them(make, levels, capsys):
    network = make()
    student = wrap_student(network)
    assert student.settings.wrap.strides == levels
    said = ", ".join(f"{name} (stride {stride})" for name, stride in levels.items())
    assert capsys.readouterr().err == f"{type(network).__name__}: levels {said}; others by levels=\n"
    output = student.forward_train(torch.rand(1, 3, 64, 64))
    found = {name: 64 // each.shape[-1] for name, each in output.levels.items()}
    assert list(found.values()) == list(levels.values()) and list(found)[-1] == "bottleneck"


def test_a_network_without_maps_needs_its_levels_named():
    with pytest.raises(SettingsError, match=r"no module gives a map that could be a level; name them: wrap_student\("):
        wrap_student(nn.Sequential(nn.Conv2d(3, 1, 1)))
