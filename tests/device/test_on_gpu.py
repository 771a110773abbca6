"""What each path asks of a GPU: it runs, mixes no devices, and its launches, waits and uploads never become more."""

import pytest
import torch
from paths import PATHS, TEACHERS, build, draw, walk
from pretend_gpu import GPU, pretend_gpu

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real one, for tests marked gpu")
MOST = {
    "teacher sam": (110, 0, 0),
    "teacher dinov2": (66, 0, 0),
    "teacher dinov2_reg": (67, 0, 0),
    "teacher dinov3": (127, 0, 0),
    "teacher dinov3_convnext": (46, 0, 0),
    "teacher sam2": (98, 0, 0),
    "teacher sam3": (135, 0, 0),
    "teacher radio": (66, 0, 0),
    "teacher clip": (64, 0, 0),
    "teacher oneformer": (279, 1, 0),
    "teacher mask2former": (274, 0, 0),
    "teacher hf": (30, 0, 0),
    "sam in bfloat16": (129, 0, 0),
    "dinov2 in bfloat16": (84, 0, 0),
    "dinov2_reg in bfloat16": (85, 0, 0),
    "dinov3 in bfloat16": (156, 0, 0),
    "dinov3_convnext in bfloat16": (51, 0, 0),
    "sam2 in bfloat16": (118, 0, 0),
    "sam3 in bfloat16": (170, 0, 0),
    "radio in bfloat16": (85, 0, 0),
    "clip in bfloat16": (82, 0, 0),
    "oneformer in bfloat16": (295, 1, 0),
    "mask2former in bfloat16": (290, 0, 0),
    "extract sam": (343, 0, 8),
    "extract dinov2": (346, 0, 12),
    "extract dinov2_reg": (347, 0, 12),
    "extract dinov3": (412, 0, 12),
    "extract dinov3_convnext": (299, 0, 12),
    "extract sam2": (393, 0, 12),
    "extract sam3": (435, 0, 12),
    "extract radio": (346, 0, 12),
    "extract clip": (343, 0, 12),
    "extract oneformer": (506, 1, 8),
    "extract mask2former": (572, 0, 12),
    "step baseline": (356, 0, 1),
    "step mean-teacher": (449, 0, 1),
    "step difom": (461, 0, 1),
    "step difom-paper": (290, 0, 1),
    "step difom-published": (276, 0, 1),
    "step difom-multiscale": (813, 0, 1),
    "step pseudo-masks": (451, 0, 1),
    "step unet++": (955, 0, 1),
    "step pranet": (2332, 0, 1),
    "step smp:unet/resnet18": (813, 0, 1),
    "scores of a student": (205, 113, 1),
    "step, four teachers": (664, 0, 1),
    "step, four teachers of features": (600, 0, 1),
    "step, four teachers from disk": (1771, 0, 1),
    "step, several sizes": (1716, 0, 1),
    "step, stored views": (1733, 0, 1),
    "scores of a probe": (223, 85, 1),
}
"""Path to the most launches, waits and uploads of one of its units. They only fall."""
QUICK = (
    "sam in bfloat16",
    "extract dinov2",
    "step, four teachers of features",
    "step mean-teacher",
    "scores of a student",
)


def test_the_counter_counts() -> None:
    with pretend_gpu() as gpu:
        host = torch.zeros(4)
        there = host.to("cuda")  # waits
        host.to("cuda", non_blocking=True)  # waits too: not pinned
        host.pin_memory().to("cuda", non_blocking=True)
        (there + 1).view(2, 2).mul_(2)
        torch.empty(4, pin_memory=True).copy_(there, non_blocking=True)
        torch.empty(4).copy_(there, non_blocking=True)
        there.new_tensor((1.0, 2.0))
        there[0] = 3.0
        bool(there[torch.tensor([1])] > 0)
    assert [each.partition(" @ ")[0] for each in gpu.work.launches] == ["add", "mul_", "fill_", "index", "gt"]
    assert [each.partition(" @ ")[0] for each in gpu.work.uploads.elements()] == ["_to_copy"]
    assert [each.partition(" @ ")[0] for each in gpu.work.downloads.elements()] == ["copy_"]
    assert sorted(each.partition(" @ ")[0] for each in gpu.work.waits.elements()) == sorted(
        ["_to_copy"] * 3 + ["copy_", "index by numbers of the host", "_local_scalar_dense"]
    )
    assert all(" @ test_on_gpu.py:" in each for each in gpu.work.waits)


def test_tensors_of_two_devices_do_not_meet() -> None:
    with pretend_gpu(), pytest.raises(RuntimeError, match="same device, found cuda:0 and cpu"):
        torch.ones(2, device="cuda") + torch.ones(2)


def test_a_network_learns_there_what_it_learns_here() -> None:
    def learn(device: str) -> list[torch.Tensor]:
        torch.manual_seed(0)
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 1, 1))
        moves = torch.optim.AdamW(network.parameters(), fused=True)
        pixels = torch.rand(2, 3, 8, 8).to(device)
        network.to(device)
        for _ in range(3):
            network(pixels).square().mean().backward()
            moves.step()
            moves.zero_grad()
        assert next(network.parameters()).device.type == device
        return [each.detach().cpu() for each in network.state_dict().values()]

    here = learn("cpu")
    with pretend_gpu():
        there = learn(GPU.type)
    for one, other in zip(here, there, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    "name", [*(each if each in QUICK else pytest.param(each, marks=pytest.mark.slow) for each in PATHS)]
)
def test_a_path_runs_and_asks_for_no_more_than_it_did(name: str) -> None:
    found = walk(name)
    assert all(one <= most for one, most in zip(found, MOST[name], strict=True)), f"{found} above {MOST[name]}"


@pytest.mark.parametrize("spec", [*TEACHERS, "hf"])
@pytest.mark.slow
def test_a_teacher_there_gives_what_it_gives_here(spec: str, tmp_path: object) -> None:
    here = build(spec, tmp_path, device="cpu", precision="float32").features(draw(spec))
    with pretend_gpu():
        there = build(spec, tmp_path, device="cuda", precision="float32").features(draw(spec).to("cuda"))
        assert all(each.is_cuda for each in there.values())
        there = {name: each.cpu() for name, each in there.items()}
    for name, each in here.items():
        torch.testing.assert_close(there[name], each, rtol=1e-5, atol=1e-5)
