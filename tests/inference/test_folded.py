"""A student is laid out for the CPU without another answer."""

import numpy as np
import pytest
import torch
from painted_frames import paint_frame, save_small_student
from torch import nn

from difom_train import build_student, load_student
from difom_train.inference import fold_for_cpu, load_segmenter, segment


@pytest.mark.parametrize("name", ["unet", "unet++", "pranet"])
def test_the_folded_student_gives_the_same_logits_and_the_student_stays(name: str) -> None:
    student = build_student(name, width=None if name == "pranet" else 4, weights="random", seed=0).eval()
    generator = torch.Generator().manual_seed(0)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training: means and variances of their own
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    before = {key: value.clone() for key, value in student.state_dict().items()}
    pixels = torch.rand(2, 3, 64, 64, generator=generator)
    with torch.inference_mode():
        wanted, folded = student(pixels), fold_for_cpu(student)
        found = folded(pixels.contiguous(memory_format=torch.channels_last))
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    count = [sum(isinstance(part, nn.BatchNorm2d) for part in network.modules()) for network in (folded, student)]
    assert count[0] < count[1]
    assert all(torch.equal(before[key], value) for key, value in student.state_dict().items())


def test_segmented_pictures_are_the_plain_students_one_by_one_and_in_a_batch(tmp_path) -> None:
    run = save_small_student(tmp_path / "run")
    pictures = [paint_frame(seed, 64, 48)[0] for seed in range(3)]
    segmenter = load_segmenter(run, device="cpu")
    together = segment(segmenter, pictures)
    single = np.concatenate([segment(segmenter, [picture]) for picture in pictures])
    np.testing.assert_allclose(together, single, atol=1e-4)
    assert segmenter.student.state_dict().keys() == load_student(run).state_dict().keys()
