import pickle

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from difom_cache.errors import WeightsError
from difom_train import build_student
from difom_train.students import weights


@pytest.fixture
def no_hub(monkeypatch, tmp_path):
    """An unreachable hub, and nothing fetched before."""
    monkeypatch.setattr(constants, "ENDPOINT", "http://localhost:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.parametrize("name", ["pranet", "smp:fpn/resnet18"])
def test_an_unreachable_hub_is_one_line_that_names_the_flag_and_leaves_its_client_as_it_was(no_hub, name):
    if name.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    with pytest.raises(WeightsError, match="--student-weights random") as caught:
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
        weights.read_state(tmp_path / "evil.pth")


def test_a_file_of_something_else_is_refused(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "run.pt")
    with pytest.raises(WeightsError, match="holds no table of tensors"):
        weights.read_state(tmp_path / "run.pt")
