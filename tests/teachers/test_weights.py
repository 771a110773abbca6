import pytest
import torch
from torch import nn

from difom_cache.errors import WeightsError
from difom_cache.teachers import (
    Repository,
    digest_tensors,
    fetched_folder,
    fill_random,
    find_published,
    folder_name,
    load_exact,
    read_json,
)

TENSORS = {"b": torch.arange(6.0).view(2, 3), "a": torch.ones(4)}


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
    with pytest.raises(WeightsError, match=r"no weights of sam:tiny are published.*--weights FILE.*--weights random"):
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
