"""Runs go to a hub on loopback and come back the same; nothing else leaves, and each refusal is one line."""

import json
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from fake_hub import FakeHub
from painted_frames import paint_benchmark, save_small_student

from difom_cache import describe_teachers
from difom_train import evaluate, load_student, predict
from difom_train.cli import main
from difom_train.inference import load_exported
from difom_train.sharing import FILES

pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of the client's own call
NAME = "me/small"
LEAKS = ("masks.json", "log.jsonl", "last.ckpt", "train.log", "curves.png")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder as training leaves it, with what stays at home beside what goes."""
    folder = save_small_student(tmp_path / "runs" / "unet-seed0")
    for name in LEAKS:
        (folder / name).write_text('{"masks": ["4f2a91"]}')
    facts = {"command": ["difom-train", str(tmp_path)], "caches": [str(tmp_path)], "taps": ["sam/neck@16"], "seed": 0}
    facts |= {"hardware": {"cpu": "4f2a91"}, "manifest_digests": ["4f2a91"], "teachers": {"sam": "sam:vit_b"}}
    (folder / "run.json").write_text(json.dumps(facts | {"status": "finished", "masks": {"mark": ""}, "versions": {}}))
    (folder / "settings.toml").write_text(
        f'seed = 0\n[run]\ncache = ["{tmp_path}"]\n[student]\nweights = "{tmp_path}/first.pth"\n'
    )
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A hub without models, and a client with a token that waits for half a second and has no Xet."""
    (tmp_path / "root").mkdir()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    huggingface_hub.close_session()
    with FakeHub(tmp_path / "root") as running:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        yield running
    huggingface_hub.close_session()


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Return a function that runs `difom-train` and gives exit code, output and error output."""

    def ask(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["difom-train", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return int(ended.value.code or 0), out, err

    return ask


def texts_of(folder: Path) -> dict[str, str]:
    return {path.name: path.read_bytes().decode("latin-1") for path in folder.iterdir()}


def test_a_run_that_was_pushed_comes_back_and_gives_the_same_bits(run, hub, call, tmp_path):
    code, out, err = call("push", run, NAME, "--no-onnx")
    assert code == 0 and out.strip() == f"{hub.url}/{NAME}/commit/{hub.commit(NAME)}", err
    assert {token for _, token in hub.tokens} == {"hf_mine"}
    back = tmp_path / "back"
    assert call("pull", NAME, "--out", back)[:2] == (0, f"{back}\n")
    one, other = load_student(run), load_student(back)
    pixels = torch.rand(2, 3, 64, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(one(pixels), other(pixels)) and one.meta == other.meta
    images = paint_benchmark(tmp_path / "data") / "TestDataset" / "Kvasir" / "images"
    for folder in (run, back):
        predict(folder, images, out=tmp_path / f"marked-{folder.name}")
    mine, theirs = (sorted((tmp_path / f"marked-{folder.name}").rglob("*.*")) for folder in (run, back))
    assert len(mine) == 7 and [path.read_bytes() for path in mine] == [path.read_bytes() for path in theirs]
    scores = [evaluate(folder, tmp_path / "data", limit=1).means() for folder in (run, back)]
    assert scores[0] == scores[1]


def test_only_the_listed_files_leave_and_nothing_in_them_names_this_machine(run, hub, call, tmp_path):
    code, _, err = call("push", run, NAME, "--no-onnx")
    sent = hub.files(NAME)
    assert code == 0 and set(sent) == set(FILES) - {"student.onnx"}
    assert [line.partition(":")[0] for line in err.splitlines() if line.endswith((" B", " kB"))] == sorted(sent)
    assert not [name for name, data in sent.items() if str(tmp_path).encode() in data or b"4f2a91" in data]
    assert sent["student.safetensors"] == (run / "student.safetensors").read_bytes()
    assert set(json.loads(sent["run.json"])) == {"taps", "seed", "teachers", "status", "masks", "versions"}
    assert b"# small\n" in sent["README.md"] and b"difom-train pull me/small" in sent["README.md"]
    assert b'weights = "first.pth"' in sent["settings.toml"] and b"cache" not in sent["settings.toml"]


def test_a_dry_run_lists_the_files_and_asks_no_hub(run, hub, call):
    code, out, err = call("push", run, NAME, "--no-onnx", "--dry-run")
    assert (code, out) == (0, f"nothing was uploaded to {NAME}: --dry-run\n") and hub.log == []
    assert [line.partition(":")[0] for line in err.splitlines()] == sorted(set(FILES) - {"student.onnx"})


def test_a_model_is_private_unless_it_is_to_be_public(run, hub, call):
    assert call("push", run, NAME, "--no-onnx")[0] == 0 and NAME in hub.private
    assert call("push", run, "me/open", "--no-onnx", "--public")[0] == 0 and "me/open" not in hub.private
    before = hub.commit("me/open")
    save_small_student(run, seed=1)
    code, _, err = call("push", run, "me/open", "--no-onnx")
    assert code == 2 and "me/open is public already; upload with --public" in err
    assert hub.commit("me/open") == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter's own code
@pytest.mark.filterwarnings("ignore::FutureWarning:torch.*")
def test_the_onnx_file_goes_along_and_leaves_with_the_student_that_it_was_of(run, hub, call, tmp_path):
    pytest.importorskip("onnxscript")
    assert call("push", run, NAME)[0] == 0
    assert call("pull", NAME, "--out", tmp_path / "back")[0] == 0
    frames = np.random.default_rng(5).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    with torch.inference_mode():
        prob = torch.sigmoid(load_student(run)(torch.from_numpy(frames).permute(0, 3, 1, 2) / 255))[:, 0]
    np.testing.assert_allclose(load_exported(tmp_path / "back" / "student.onnx")(frames), prob, atol=1e-4)
    assert b"unet-seed0" not in hub.files(NAME)["student.onnx"] and b"student.onnx" in hub.files(NAME)["README.md"]
    save_small_student(run, seed=1)
    assert call("push", run, NAME, "--no-onnx")[0] == 0
    assert "student.onnx" not in hub.files(NAME) and b"student.onnx" not in hub.files(NAME)["README.md"]
    assert call("pull", NAME, "--out", tmp_path / "back", "--force")[0] == 0
    assert texts_of(tmp_path / "back").keys() == set(FILES) - {"student.onnx"}


def test_a_teacher_whose_licence_is_not_known_here_keeps_the_student_at_home(run, hub, call):
    held = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(held | {"teachers": {"onnx-mine": "onnx:mine", "sam": "sam:vit_b"}}))
    code, _, err = call("push", run, NAME, "--no-onnx")
    assert code == 2 and err.count("\n") == 1 and hub.log == []
    assert "learnt from onnx-mine (the file's own) may be passed on" in err and "--licence" in err
    assert call("push", run, NAME, "--no-onnx", "--licence", "cc-by-nc-4.0")[0] == 0
    assert b"license: cc-by-nc-4.0\n" in hub.files(NAME)["README.md"]


def test_of_every_teacher_of_the_table_it_is_known_whether_its_student_may_be_passed_on(run, call):
    held = json.loads((run / "run.json").read_text())
    teachers = {each["teacher"].replace(":", "-"): each["teacher"] for each in describe_teachers()}
    (run / "run.json").write_text(json.dumps(held | {"teachers": teachers}))
    _, _, err = call("push", run, NAME, "--dry-run", "--no-onnx")
    assert "from hf-MODEL (the model's own), onnx-FILE (the file's own), student-... (unknown) may be" in err


def test_what_the_hub_refuses_is_one_line(run, hub, call, monkeypatch):
    code, _, err = call("push", run, NAME, "--no-onnx", "--licence", "of-my-own")
    assert code == 2 and '"license" must be one of [apache-2.0' in err.splitlines()[-1]
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", "/nowhere")
    code, _, err = call("push", run, "me/other", "--no-onnx")
    assert code == 2 and "error: push: cannot push to me/other at" in err and "401: HF_TOKEN is" in err
    code, _, err = call("push", run, "not a name", "--no-onnx")
    assert code == 2 and "'not a name' is neither a folder nor the id of a hub model" in err.splitlines()[-1]


def test_a_hub_that_never_answers_ends_a_push(run, hub, call, monkeypatch):
    assert call("push", run, NAME, "--no-onnx")[0] == 0
    hub.faults[NAME] = {"stall": True}
    start_s = time.monotonic()
    code, _, err = call("push", run, NAME, "--no-onnx")
    assert code == 2 and "no answer within 0.5 s" in err.splitlines()[-1] and time.monotonic() - start_s < 20


def test_what_cannot_be_pulled_is_one_line_and_leaves_no_folder(run, hub, call, tmp_path):
    out = tmp_path / "back"
    (hub.root / "you" / "text").mkdir(parents=True)
    (hub.root / "you" / "text" / "README.md").write_text("a model of something else")
    for repo, said in (
        ("you/none", "the hub has no model you/none"),
        ("you/text", "holds no student.json and student.sa"),
    ):
        code, _, err = call("pull", repo, "--out", out)
        assert code == 2 and err.count("\n") == 1 and said in err, err
    call("push", run, NAME, "--no-onnx")
    hub.faults[NAME] = {"corrupt": True}
    code, _, err = call("pull", NAME, "--out", out)
    assert code == 2 and "student.safetensors arrived damaged" in err
    assert not out.exists() and not list(tmp_path.glob(".tmp-*"))
    hub.faults.clear()
    code, _, err = call("pull", NAME, "--out", out, "--revision", "v9")
    assert code == 2 and "no revision 'v9'" in err


def test_a_folder_that_holds_a_run_is_not_pulled_over_unless_forced(run, hub, call, tmp_path, monkeypatch):
    call("push", run, NAME, "--no-onnx")
    code, _, err = call("pull", NAME, "--out", run)
    assert code == 2 and "exist; choose another --out" in err and (run / "last.ckpt").is_file()
    monkeypatch.chdir(tmp_path)
    assert call("pull", NAME)[:2] == (0, "runs/small\n")
    (tmp_path / "runs" / "small" / "student.json").write_text("{}")
    assert call("pull", NAME, "--force")[0] == 0
    assert (tmp_path / "runs" / "small" / "student.json").read_bytes() == (run / "student.json").read_bytes()


def test_a_gated_model_is_not_pulled_and_the_line_names_no_option_of_other_commands(run, hub, call, tmp_path):
    assert call("push", run, NAME, "--no-onnx")[0] == 0
    hub.faults[NAME] = {"gated": True}
    code, _, err = call("pull", NAME, "--out", tmp_path / "back")
    assert code == 2 and not (tmp_path / "back").exists()
    assert err.endswith(f"accept its licence at {hub.url}/{NAME} and set HF_TOKEN\n")
