import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from difom_cache import digest_tensors
from difom_cache.errors import WeightsError
from difom_cache.teachers import (
    Repository,
    fetched_folder,
    fill_random,
    find_published,
    folder_name,
    load_exact,
    read_json,
    read_tensors,
)

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4)}


def save(tmp_path, name, tensors=TENSORS):
    path = tmp_path / name
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    else:
        torch.save(tensors, path)
    return path


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth", "w.pt", "w.bin"])
def test_every_file_format_gives_the_same_tensors_and_digest(tmp_path, name):
    found = read_tensors(save(tmp_path, name), "sam:tiny")
    assert found.keys() == TENSORS.keys() and digest_tensors(found) == digest_tensors(TENSORS)


@pytest.mark.parametrize("wrapper", ["state_dict", "model"])
def test_a_state_dict_inside_a_checkpoint_is_found(tmp_path, wrapper):
    found = read_tensors(save(tmp_path, "w.pth", {wrapper: TENSORS, "epoch": 3}), "sam:tiny")
    assert found.keys() == TENSORS.keys()


def test_a_folder_of_shards_is_read_whole(tmp_path):
    save(tmp_path, "part1.safetensors", {"a": TENSORS["a"]})
    save(tmp_path, "part2.safetensors", {"b": TENSORS["b"]})
    index = {"weight_map": {"a": "part1.safetensors", "b": "part2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert digest_tensors(read_tensors(tmp_path, "x")) == digest_tensors(TENSORS)


def test_an_index_that_leaves_its_folder_is_refused(tmp_path):
    index = {"weight_map": {"a": "../secret.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(WeightsError, match=r"outside its folder: '\.\./secret\.safetensors'"):
        read_tensors(tmp_path, "x")


def test_the_digest_tells_names_shapes_types_and_values_apart():
    base = digest_tensors(TENSORS)
    assert digest_tensors(dict(reversed(TENSORS.items()))) == base
    changed = [
        {**TENSORS, "c": torch.ones(1)},
        {"b": TENSORS["b"].view(3, 2), "a": TENSORS["a"]},
        {"b": TENSORS["b"].half(), "a": TENSORS["a"]},
        {"b": TENSORS["b"] + 1e-6, "a": TENSORS["a"]},
        {"a": TENSORS["b"], "b": TENSORS["a"]},
    ]
    assert len({base, *map(digest_tensors, changed)}) == 6


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_a_truncated_file_is_refused_and_named(tmp_path, name):
    path = save(tmp_path, name)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match=rf"{name}: not a whole .*fetch it again"):
        read_tensors(path, "sam:tiny")


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "w.pth").write_bytes(b"")
    with pytest.raises(WeightsError, match=r"w\.pth: "):
        read_tensors(tmp_path / "w.pth", "sam:tiny")


class Payload:
    """What a pickle could run on loading."""

    def __reduce__(self):
        return (print, ("this must never be printed",))


def test_a_pickle_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save({"a": torch.ones(1), "payload": Payload()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"w\.pth: holds more than tensors \(print\).*safetensors"):
        read_tensors(tmp_path / "w.pth", "sam:tiny")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(WeightsError, match=r"plain\.pth: "):
        read_tensors(tmp_path / "plain.pth", "sam:tiny")
    assert "never" not in capsys.readouterr().out


def test_a_number_of_numpys_is_named_in_plain_letters(tmp_path):
    path = save(tmp_path, "w.pth", {"state_dict": TENSORS, "best": np.float64(0.5)})
    with pytest.raises(
        WeightsError, match=r"w\.pth: holds more than tensors \(numpy\S+scalar\).*state_dict\(\)"
    ) as caught:
        read_tensors(path, "sam:tiny")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("kind", ["pickle", "text"])
def test_messages_about_damage_are_plain_letters(tmp_path, kind):
    data = pickle.dumps({"a": 1}, protocol=2)[:10] if kind == "pickle" else b"not a checkpoint"
    (tmp_path / "w.pth").write_bytes(data)
    with pytest.raises(WeightsError, match=r"w\.pth: ") as caught:
        read_tensors(tmp_path / "w.pth", "sam:tiny")
    assert str(caught.value).isprintable()


def test_a_checkpoint_that_is_no_state_dict_is_refused(tmp_path):
    with pytest.raises(WeightsError, match="expected a state dict of tensors, found dict"):
        read_tensors(save(tmp_path, "w.pth", {"epoch": 3}), "sam:tiny")


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_naming_the_tensor(tmp_path, bad):
    path = save(tmp_path, "w.safetensors", {**TENSORS, "broken": torch.tensor([1.0, bad])})
    with pytest.raises(WeightsError, match=r"w\.safetensors: tensor broken holds NaN or infinity"):
        read_tensors(path, "sam:tiny")


def test_a_missing_path_says_how_to_fetch_it(tmp_path):
    with pytest.raises(WeightsError, match=r"no weights at .*nowhere\.pth; .*`difom-cache weights fetch sam:vit_b"):
        read_tensors(tmp_path / "nowhere.pth", "sam:vit_b")


def test_another_kind_of_file_is_refused(tmp_path):
    (tmp_path / "w.h5").touch()
    with pytest.raises(WeightsError, match=r"expected a \.safetensors file.* found '\.h5'"):
        read_tensors(tmp_path / "w.h5", "sam:tiny")


def test_an_empty_folder_is_refused_naming_what_it_should_hold(tmp_path):
    with pytest.raises(WeightsError, match=r"expected one of model\.safetensors"):
        read_tensors(tmp_path, "dinov2:base")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"weight": torch.ones(2, 3)}, r"1 missing \(bias\)"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "extra": torch.ones(1)}, r"1 unexpected \(extra\)"),
        ({"weight": torch.ones(5, 3), "bias": torch.ones(2)}, r"weight is \(5, 3\), expected \(2, 3\)"),
    ],
)
def test_weights_of_another_network_are_refused_naming_the_keys(tensors, message):
    with pytest.raises(WeightsError, match=rf"w\.pth: not the weights of edges: {message}"):
        load_exact(nn.Linear(3, 2), tensors, "w.pth", "edges")


def test_random_weights_depend_on_the_name_alone():
    def filled(name):
        network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(4))
        fill_random(network, name)
        return digest_tensors(network.state_dict())

    torch.manual_seed(0)
    first = filled("a")
    torch.manual_seed(1)
    assert filled("a") == first != filled("b")


def test_random_weights_leave_nothing_dead():
    network = nn.Sequential(nn.Linear(400, 50), nn.LayerNorm(50))
    fill_random(network, "a")
    assert network[0].weight.std().item() == pytest.approx(400**-0.5, rel=0.05)
    assert network[0].bias.abs().min() > 0 and (network[1].weight - 1).abs().max() < 0.2


def test_fetched_weights_are_found_through_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("DIFOM_WEIGHTS", str(tmp_path))
    assert fetched_folder("dinov2:base") is None
    (tmp_path / "dinov2-base").mkdir()
    assert fetched_folder("dinov2:base") == tmp_path / "dinov2-base"
    found = find_published("dinov2:base", Repository("facebook/dinov2-base"))
    assert found == (tmp_path / "dinov2-base", str(tmp_path / "dinov2-base"))


def test_a_variant_without_published_weights_says_so():
    with pytest.raises(WeightsError, match=r"sam:tiny is a small network for tests.*--weights random"):
        find_published("sam:tiny", Repository(""))


def test_a_folder_name_keeps_to_plain_characters():
    assert folder_name("hf:owner/model name") == "hf-owner-model-name"


def test_json_that_is_none_is_refused(tmp_path):
    with pytest.raises(WeightsError, match=r"expected a config\.json beside the weights"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(WeightsError, match="not readable as JSON"):
        read_json(tmp_path / "config.json")
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(WeightsError, match="expected a JSON object, found list"):
        read_json(tmp_path / "config.json")
