import torch

from difom_train import build_student
from difom_train.students import DifomNeck, PaperNeck


def test_difom_gives_the_decoder_the_sum_of_two_layers_that_take_both_signs():
    neck, x = DifomNeck(8), torch.randn(2, 8, 3, 3)
    out, shown = neck(x)
    assert torch.equal(out, shown["z1"] + shown["z2"])
    assert (shown["z1"] < 0).any() and (shown["z2"] < 0).any()


def test_paper_gives_the_decoder_the_second_layer_of_the_first_behind_its_relu():
    neck, x = PaperNeck(8), torch.randn(2, 8, 3, 3)
    out, shown = neck(x)
    assert torch.equal(out, shown["z2"]) and (shown["z1"] >= 0).all()
    assert torch.equal(neck.high(shown["z1"]), shown["z2"])


def test_what_the_neck_says_reaches_the_output():
    """In the released notebook L1 and L2 are side branches; here the decoder needs them."""
    student = build_student("unet", width=4, neck="difom", seed=0).eval()
    pictures = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = student(pictures)
        student.neck.low.bias += 1.0
        assert not torch.allclose(student(pictures), before)
