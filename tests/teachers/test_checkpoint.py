import argparse
import json
import pickle
import zipfile

import author_layouts as authors
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from difom_cache.errors import WeightsError
from difom_cache.teachers import digest_tensors, read_tensors

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


@pytest.mark.parametrize("where", ["state_dict", "model", "ema.module", "net", "anything"])
def test_the_one_set_of_weights_is_found_whatever_a_trainer_calls_it(tmp_path, where):
    held = TENSORS
    for name in reversed(where.split(".")):
        held = {name: held}
    optimizer = {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]}
    held |= {"optimizer": optimizer, "epoch": 3, "args": argparse.Namespace(lr=0.1), "best": {"dice": 0.8}}
    found = read_tensors(save(tmp_path, "w.pth", held), "sam:tiny")
    assert digest_tensors(found) == digest_tensors(TENSORS)


def test_statistics_beside_the_network_are_not_taken_for_it(tmp_path):
    held = {"statistics": {"mean": torch.zeros(3)}, "model": TENSORS}
    assert read_tensors(save(tmp_path, "w.pth", held), "sam:tiny").keys() == TENSORS.keys()


def test_a_teacher_is_taken_beside_its_student(tmp_path):
    held = {"student": {"b": torch.zeros(1)}, "teacher": TENSORS}
    assert read_tensors(save(tmp_path, "w.pth", held), "sam:tiny").keys() == TENSORS.keys()


@pytest.mark.parametrize("pair", [("state_dict", "state_dict_ema"), ("model", "ema"), ("encoder", "decoder")])
def test_several_sets_of_weights_are_refused_and_named(tmp_path, pair):
    path = save(tmp_path, "w.pth", dict.fromkeys(pair, TENSORS))
    with pytest.raises(
        WeightsError, match=rf"w\.pth: holds several sets of weights \('{pair[0]}', '{pair[1]}'\); save the one"
    ):
        read_tensors(path, "sam:tiny")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"Repository not found", r"holds text \('Repository not found'\)"),
        (b"\n<!doctype html>\n<html>", r"holds a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", r"holds a Git LFS pointer"),
        (b"\x80\x02R.", r"not a whole weights file"),
    ],
)
@pytest.mark.parametrize("name", ["w.pth", "w.bin"])
def test_what_is_no_weights_is_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{name}: {message}") as caught:
        read_tensors(tmp_path / name, "sam:tiny")
    assert "\n" not in str(caught.value)


def test_a_torchscript_archive_gives_its_tensors_by_the_names_of_its_state_dict(tmp_path):
    held = {"a.b.weight": torch.arange(6.0).view(3, 2).T, "a.n": torch.tensor(3), "low": torch.ones(4).half()}
    found = read_tensors(authors.save_openai(held, tmp_path / "w.pt"), "clip:tiny")
    assert found.keys() == held.keys()
    for name, value in held.items():
        assert torch.equal(found[name], value) and found[name].dtype == value.dtype, name


def test_a_torchscript_archive_that_names_anything_else_is_refused(tmp_path, capsys):
    source = authors.save_openai({"a.weight": torch.ones(2)}, tmp_path / "w.pt")
    with zipfile.ZipFile(source) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, pickle.dumps(Payload(), protocol=2) if name.endswith("data.pkl") else content)
    with pytest.raises(WeightsError, match=r"evil\.pt: holds more than tensors \(__builtin__\.print\)"):
        read_tensors(tmp_path / "evil.pt", "clip:tiny")
    assert "never" not in capsys.readouterr().out


def test_detectron2s_pickle_is_not_opened_and_says_how_to_convert_it(tmp_path):
    (tmp_path / "model_final.pkl").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(WeightsError, match=r"model_final\.pkl: .*detectron2.*not opened.*python -c"):
        read_tensors(tmp_path / "model_final.pkl", "mask2former:tiny")
