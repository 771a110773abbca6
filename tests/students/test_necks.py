import torch

from difom_train import build_student
from difom_train.students import DifomNeck, PaperNeck, ResidualNeck


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


def test_residual_adds_nothing_at_first_and_what_it_is_taught_later():
    neck, x = ResidualNeck(8), torch.randn(2, 8, 3, 3)
    out, shown = neck(x)
    assert torch.equal(out, x)
    out.square().sum().backward()
    assert neck.add.weight.grad.abs().sum() > 0  # zero weights that can leave zero
    torch.nn.init.eye_(neck.add.weight.data.view(8, 256))
    torch.testing.assert_close(neck(x)[0], x + (shown["z1"] + shown["z2"])[:, :8])


def test_an_unpretrained_student_with_the_residual_neck_begins_as_one_without():
    plain, taught = (build_student("unet", width=4, neck=neck, seed=0).eval() for neck in (None, "residual"))
    taught.load_state_dict(plain.state_dict(), strict=False)
    pictures = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(pictures), taught(pictures))


def test_what_the_neck_says_reaches_the_output():
    """In the released notebook L1 and L2 are side branches; here the decoder needs them."""
    student = build_student("unet", width=4, neck="difom", seed=0).eval()
    pictures = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        before = student(pictures)
        student.neck.low.bias += 1.0
        assert not torch.allclose(student(pictures), before)
