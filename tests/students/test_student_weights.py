import argparse
import pickle

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from difom_cache.errors import WeightsError
from difom_train import build_student


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An unreachable hub, and nothing fetched before."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://localhost:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", ["pranet", "smp:fpn/resnet18"])
def test_an_unreachable_hub_is_one_line_that_names_the_flag_and_leaves_its_client_as_it_was(no_hub, name):
    if name.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(WeightsError, match="imagenet:FILE") as caught:
        build_student(name)
    assert "\n" not in str(caught.value)
    assert constants.HF_HUB_OFFLINE is False


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_an_encoders_own_file_fills_the_encoder_alone(tmp_path, ending):
    source = build_student("unet", width=2, seed=5)
    state = source.encoder_modules()[0].state_dict()
    file = tmp_path / f"encoder{ending}"
    with_classifier = {**state, "fc.weight": torch.zeros(2, 2)}  # timm's files end in one
    save_file(with_classifier, file) if ending == ".safetensors" else torch.save(with_classifier, file)
    started = build_student("unet", width=2, weights=str(file), seed=6)
    assert all(torch.equal(started.encoder_modules()[0].state_dict()[name], value) for name, value in state.items())
    assert not torch.equal(started.head.weight, source.head.weight)


def test_another_networks_file_is_refused(tmp_path):
    save_file({"some.weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"it lacks '.*--student-weights random"):
        build_student("unet", width=2, weights=str(tmp_path / "other.safetensors"))


def test_an_absent_file_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"no student weights at .*absent\.pth"):
        build_student("unet", width=2, weights=str(tmp_path / "absent.pth"))


def test_a_pickle_that_would_run_code_is_not_loaded(tmp_path):
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(print, protocol=2))
    with pytest.raises(WeightsError, match=r"evil\.pth"):
        build_student("unet", width=2, weights=str(tmp_path / "evil.pth"))


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "run.pt")
    with pytest.raises(WeightsError, match=r"run\.pt: expected a state dict of tensors"):
        build_student("unet", width=2, weights=str(tmp_path / "run.pt"))


def other_state(seed: int = 5):
    """Return a narrow student and the tensors of its encoder under names of its own."""
    source = build_student("unet", width=2, seed=seed)
    return source, {k: v.clone() for k, v in source.encoder_modules()[0].state_dict().items()}


def below(prefix, state):
    return {prefix + key: value for key, value in state.items()}


WRAPPED = {
    "DDP": lambda state: {"model": below("module.", state), "epoch": 3},
    "Lightning": lambda state: {"state_dict": below("model.encoder.", state) | {"model.head.weight": torch.zeros(2)}},
    "compiled": lambda state: below("_orig_mod.", state),
    "average": lambda state: {"model_ema": below("module.", state) | {"n_averaged": torch.tensor(3)}},
    "teacher": lambda state: {"teacher": below("backbone.", state), "student": below("backbone.", state)},
    "arguments": lambda state: {"model": state, "args": argparse.Namespace(lr=0.1)},
}


@pytest.mark.parametrize("how", WRAPPED)
@pytest.mark.parametrize("part", ["encoder", "whole"])
def test_what_a_trainer_put_around_the_weights_is_taken_off(tmp_path, how, part):
    source, encoder = other_state()
    state = encoder if part == "encoder" else source.state_dict()
    torch.save(WRAPPED[how](state), tmp_path / "w.ckpt")
    started = build_student("unet", width=2, weights=str(tmp_path / "w.ckpt"), seed=6)
    filled = started.encoder_modules()[0] if part == "encoder" else started
    assert all(torch.equal(filled.state_dict()[name], value) for name, value in state.items())
    assert torch.equal(started.head.weight, source.head.weight) == (part == "whole")


def test_two_sets_of_weights_in_one_file_are_refused_and_named(tmp_path):
    _, state = other_state()
    torch.save({"state_dict": state, "state_dict_ema": state}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"several sets of weights \('state_dict', 'state_dict_ema'\)"):
        build_student("unet", width=2, weights=str(tmp_path / "w.pth"))
    torch.save(below("net.", state) | below("net_ema.", state), tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"holds the network several times, below \('net\.', 'net_ema\.'\)"):
        build_student("unet", width=2, weights=str(tmp_path / "w.pth"))


def test_text_in_place_of_weights_is_one_line(tmp_path):
    (tmp_path / "w.pth").write_text("Repository not found")
    with pytest.raises(WeightsError, match=r"w\.pth: holds text \('Repository not found'\)"):
        build_student("unet", width=2, weights=str(tmp_path / "w.pth"))
