"""Published weights over a hub on loopback: what is downloaded, what is not, and each way in which it fails."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace

import huggingface_hub
import old_layouts as old
import pytest
import torch
from fake_hub import FakeHub

from difom_cache import build_teacher, fetch_weights
from difom_cache.errors import DifomError, SettingsError, WeightsError
from difom_cache.teachers import (
    Repository,
    dinov2,
    download,
    find_published,
    is_here,
    locate,
    outline_teacher,
    parse_teacher,
    read_revision,
    weight_files,
)
from difom_cache.teachers import (
    hub as published,
)

NAME = "owner/small"
TEACHER = "dinov2:small"
BOUND_S = 10


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model in two shards, and a client that is patient for a fifth of a second."""
    tensors = old.fill(old.dinov2(old.DINOV2_TINY))
    old.save_folder(tmp_path / "root" / NAME, tensors, old.dinov2_config(old.DINOV2_TINY), "sharded safetensors")
    monkeypatch.delenv("DIFOM_WEIGHTS", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    with FakeHub(tmp_path / "root") as running:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = f"{running.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.2)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1 << 14)  # of bodies of some 100 kB, not of some GB
        monkeypatch.setattr(download, "WAIT_S", 0.01)
        yield running


def find(revision: str = "main"):
    return find_published(TEACHER, Repository(NAME, revision))


def refused(match: str) -> str:
    """Assert that the model is refused in one line, within the bound, and return the line."""
    start = time.monotonic()
    with pytest.raises(WeightsError, match=match) as caught:
        find()
    assert time.monotonic() - start < BOUND_S
    line = str(caught.value)
    assert "\n" not in line and "\x1b" not in line
    return line


def api_calls(hub):
    return [line for line in hub.log if "/api/models/" in line]


def body_calls(hub):
    return [line for line in hub.log if "/cdn/" in line]


def test_a_model_is_downloaded_once_and_found_without_the_hub_afterwards(hub):
    folder, source = find()
    assert source == f"{NAME}@{hub.commit(NAME)}" and folder.name == hub.commit(NAME)
    assert len(weight_files(folder)) == 2 and (folder / "preprocessor_config.json").is_file()
    assert len(api_calls(hub)) == 1 and len(body_calls(hub)) == 2
    asked = len(hub.log)
    assert find() == (folder, source) and len(hub.log) == asked
    hub.faults["*"] = {"stall": True}
    assert find() == (folder, source)


def test_the_hubs_own_client_finds_what_was_downloaded(hub):
    folder, _ = find()
    hub.faults["*"] = {"status": 503}
    found = huggingface_hub.snapshot_download(
        NAME, cache_dir=huggingface_hub.constants.HF_HUB_CACHE, local_files_only=True, allow_patterns=["*.safetensors"]
    )
    assert found == str(folder)


def test_what_the_hubs_own_client_downloaded_is_found(hub):
    cache = huggingface_hub.constants.HF_HUB_CACHE
    folder = huggingface_hub.snapshot_download(NAME, cache_dir=cache, endpoint=hub.url)
    asked = len(hub.log)
    assert str(find()[0]) == folder and len(hub.log) == asked


def test_only_what_is_missing_is_downloaded(hub):
    folder, _ = find()
    lost = weight_files(folder)[1]
    lost.resolve().unlink()
    lost.unlink()
    hub.log.clear()
    assert find()[0] == folder
    assert [line.rpartition("/")[2] for line in body_calls(hub)] == [f"{lost.name} 200"]


def test_a_pinned_revision_is_recorded_and_kept(hub):
    first = hub.commit(NAME)
    assert find("v1")[1] == find(first)[1] == f"{NAME}@{first}"
    asked = len(hub.log)
    assert find("v1")[1] == f"{NAME}@{first}" and len(hub.log) == asked
    old.save_folder(hub.root / NAME, old.fill(old.dinov2(old.DINOV2_TINY), 1), {"model_type": "dinov2"}, old.FORMATS[2])
    assert hub.commit(NAME) != first
    assert find(first)[1] == find("v1")[1] == f"{NAME}@{first}"
    assert find()[1] == f"{NAME}@{hub.commit(NAME)}"


def test_hub_and_a_revision_are_told_from_paths():
    assert [read_revision(text) for text in ("hub", "hub@v1.2", "random", "hub/folder", "./hub@v1")] == [
        *("main", "v1.2", None, None, None)
    ]
    with pytest.raises(SettingsError, match="expected a branch, tag or commit after the @"):
        read_revision("hub@")


def test_one_folder_in_a_folder_for_many_teachers_is_found(tmp_path):
    (tmp_path / "dinov2-small").mkdir()
    assert locate(str(tmp_path), TEACHER, NAME) == (tmp_path / "dinov2-small", str(tmp_path / "dinov2-small"))
    assert locate(str(tmp_path), "sam:vit_b", NAME) == (tmp_path, str(tmp_path))


def test_an_unknown_revision_is_named(hub):
    with pytest.raises(WeightsError, match=f"{NAME} has no revision 'v9' on the hub"):
        find("v9")


def test_a_gated_model_asks_for_a_token(hub):
    hub.faults[NAME] = {"gated": True}
    refused(f"{NAME} is gated; log in, accept its licence at http.*/{NAME} and set HF_TOKEN, or pass --weights PATH$")
    assert not body_calls(hub)


def test_a_token_goes_to_the_hub_and_to_no_other_host(hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    find()
    sent = [path for path, token in hub.tokens if token == "hf_secret"]
    assert any(path.endswith("/model-00001-of-00002.safetensors") for path in sent)
    assert any(path.startswith("/api/models/") for path in sent)
    assert len(body_calls(hub)) == 2 and not any(path.startswith("/cdn/") for path in sent)


def test_a_name_that_nobody_has_is_said(hub):
    hub.faults[NAME] = {"missing": True}
    refused(f"the hub has no model {NAME}, or it wants a token")


def test_a_repository_without_weights_says_what_was_looked_for(hub):
    for path in (hub.root / NAME).glob("*safetensors*"):
        path.unlink()
    refused(r"it holds none of model\.safetensors, .*pytorch_model\.bin")


@pytest.mark.parametrize("shard", ["../outside.safetensors", "below/inside.safetensors", "nowhere.safetensors"])
def test_an_index_that_names_a_file_elsewhere_is_refused(hub, shard):
    (hub.root / NAME / "below").mkdir()
    (hub.root / NAME / "below" / "inside.safetensors").touch()
    index = {"weight_map": {"a": shard}}
    (hub.root / NAME / "model.safetensors.index.json").write_text(json.dumps(index))
    refused(f"its model.safetensors.index.json names {re.escape(shard)}, which is not there")


def test_what_can_be_no_model_is_said_without_asking(hub, tmp_path):
    with pytest.raises(WeightsError, match="'/no/such/folder' is neither a folder nor the id of a hub model"):
        build_teacher("hf:/no/such/folder")
    assert not hub.log and not (tmp_path / "home").exists()


def test_a_fetch_that_fails_leaves_no_folder_that_looks_fetched(hub, tmp_path):
    hub.faults[NAME] = {"status": 503}
    with pytest.raises(WeightsError, match="it answers 503"):
        download.download(TEACHER, Repository(NAME), tmp_path / "to" / "dinov2-small")
    assert not (tmp_path / "to").exists()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_hub_is_asked_again_and_then_named(hub, status):
    hub.faults[NAME] = {"status": status, "times": 2}
    assert find()
    hub.faults[NAME] = {"status": status}
    (hub.root / NAME / "config.json").write_text(json.dumps({"model_type": "dinov2"}))  # another commit
    with pytest.raises(WeightsError, match=rf"it answers {status}.*weights fetch {TEACHER} --to DIR.*DIFOM_WEIGHTS"):
        find(hub.commit(NAME))


def test_too_many_requests_says_what_helps(hub):
    hub.faults[NAME] = {"api_status": 429}
    refused("it answers 429: too many requests from this address; wait, or set HF_TOKEN")
    assert len(api_calls(hub)) == 3


def test_a_hub_that_never_answers_is_given_up(hub):
    hub.faults["*"] = {"stall": True}
    refused(r"no answer within 0\.2 s")


def test_a_hub_that_is_not_there_is_named(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    refused(r"from http://127\.0\.0\.1:9: no connection")


def test_a_proxy_that_is_not_there_is_named(hub, monkeypatch):
    huggingface_hub.close_session()
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "")
    monkeypatch.setenv("no_proxy", "")
    try:
        refused("no connection|the proxy refuses")
    finally:
        huggingface_hub.close_session()


def test_offline_is_said(hub, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    refused("HF_HUB_OFFLINE is set")
    assert not hub.log


def test_a_connection_that_is_cut_goes_on_where_it_ended(hub):
    size = max(path.stat().st_size for path in (hub.root / NAME).glob("*.safetensors"))
    hub.faults[NAME] = {"cut_after": size // 3 + 70_000, "times": 2}
    folder, _ = find()
    assert any(line.endswith("206") for line in body_calls(hub))
    for path in weight_files(folder):
        assert path.read_bytes() == (hub.root / NAME / path.name).read_bytes()


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_connection_that_is_cut_again_and_again_is_named(hub, cut):
    hub.faults[NAME] = {"cut_after": cut}
    refused("the connection broke off")
    assert len(body_calls(hub)) == 3
    hub.faults.clear()
    assert find()


def test_a_file_that_stops_coming_is_given_up(hub):
    hub.faults[NAME] = {"pause_after": 1000}
    refused(r"no answer within 0\.2 s")
    hub.faults.clear()
    assert find()


def test_a_file_that_comes_byte_by_byte_is_given_up(hub, monkeypatch):
    monkeypatch.setattr(download, "SLOW_WINDOW_S", 0.5)
    hub.faults[NAME] = {"trickle_s": 0.02}
    refused(r"model-00001-of-00002\.safetensors comes at less than 1024 bytes a second")


def test_a_flipped_bit_is_refused_and_the_next_try_is_clean(hub):
    hub.faults[NAME] = {"corrupt": True}
    refused(r"model-00001-of-00002\.safetensors arrived damaged: its SHA-256 is not [0-9a-f]{12}")
    hub.faults.clear()
    folder, _ = find()
    assert build_teacher("dinov2:tiny", weights=str(folder)).spec.weights_digest


def test_a_file_that_is_too_short_is_refused(hub):
    hub.faults[NAME] = {"short": True}
    line = refused(r"model-00001-of-00002\.safetensors has \d+ bytes, and \d+ are announced")
    sent, announced = map(int, re.findall(r"(\d+) (?:bytes|are)", line))
    assert announced - sent == 100


def test_a_damaged_file_in_the_cache_is_downloaded_again(hub):
    cache = huggingface_hub.constants.HF_HUB_CACHE
    huggingface_hub.snapshot_download(NAME, cache_dir=cache, endpoint=hub.url)
    blob = weight_files(find()[0])[0].resolve()
    sound = blob.read_bytes()
    blob.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert weight_files(find()[0])[0].read_bytes() == sound
    blob.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    hub.faults["*"] = {"status": 503}
    refused("it answers 503")


def test_digests_are_compared_once_not_at_every_start(hub, monkeypatch):
    cache = huggingface_hub.constants.HF_HUB_CACHE
    huggingface_hub.snapshot_download(NAME, cache_dir=cache, endpoint=hub.url)
    computed = []
    real = published.sha256_of
    monkeypatch.setattr(published, "sha256_of", lambda path: computed.append(path) or real(path))
    find()
    assert len(computed) == 2
    find()
    assert len(computed) == 2


def test_a_cache_that_cannot_be_written_is_named(hub, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    refused(r"file.* cannot be written \(Not a directory\); set HF_HOME to a folder")


FULL_DISK = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
from difom_cache.teachers.hub import Repository, find_published
from difom_cache.errors import WeightsError
try:
    find_published("dinov2:small", Repository("owner/small"))
except WeightsError as err:
    print(err)
"""


def test_a_full_disk_is_named_with_the_file(hub, tmp_path):
    """A limit on file sizes stands for the full disk: the write fails in the same place, with another number."""
    given = os.environ | hub.environ(tmp_path / "full")
    done = subprocess.run([sys.executable, "-c", FULL_DISK], env=given, capture_output=True, text=True, timeout=60)
    assert re.search(r"\.incomplete cannot be written \(File too large\); free some space", done.stdout), done
    assert done.stdout.count("\n") == 1 and not done.stderr


def test_what_only_outlines_a_teacher_asks_the_hub_for_nothing(hub):
    with pytest.raises(WeightsError, match=rf"hf:{NAME} is not on this machine.*weights fetch hf:{NAME} --to DIR"):
        outline_teacher(replace(parse_teacher(f"hf:{NAME}@64"), picture_px=64))
    assert not hub.log
    find()
    asked = len(hub.log)
    with suppress(DifomError):  # whatever it holds, nothing more is asked for
        outline_teacher(replace(parse_teacher(f"hf:{NAME}@64"), picture_px=64))
    assert len(hub.log) == asked


def test_of_several_that_start_at_once_one_downloads(hub):
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(find())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len(set(found)) == 1
    assert len(api_calls(hub)) == 1 and len(body_calls(hub)) == 2


def test_fetched_weights_are_used_before_the_hub_and_know_their_commit(hub, tmp_path, monkeypatch):
    folder = download.download(TEACHER, Repository(NAME), tmp_path / "fetched" / "dinov2-small")
    assert sorted(path.name for path in folder.iterdir()) == [
        *("config.json", "difom-hub.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"),
        *("model.safetensors.index.json", "preprocessor_config.json"),
    ]
    monkeypatch.setenv("DIFOM_WEIGHTS", str(tmp_path / "fetched"))
    hub.log.clear()
    assert find() == (folder, f"{NAME}@{hub.commit(NAME)}") == find(hub.commit(NAME))
    assert not hub.log
    assert find("v1")[0] != folder  # pinned, and the note does not know this name
    assert download.download(TEACHER, Repository(NAME), folder) == folder
    assert len(body_calls(hub)) == 2  # for v1 alone: what was fetched is not fetched again


def test_weights_count_as_here_only_when_they_are_whole(hub, tmp_path, monkeypatch):
    assert not is_here(TEACHER, NAME)
    folder, _ = find()
    assert is_here(TEACHER, NAME)
    weight_files(folder)[0].unlink()
    assert not is_here(TEACHER, NAME)
    monkeypatch.setenv("DIFOM_WEIGHTS", str(tmp_path / "fetched"))
    own = tmp_path / "fetched" / "dinov2-small"
    own.mkdir(parents=True)
    (own / "config.json").write_text("{}")
    assert not is_here(TEACHER, NAME)
    torch.save({}, own / "pytorch_model.bin")
    assert is_here(TEACHER, NAME)


def test_a_teacher_records_the_commit_that_it_came_from(hub, monkeypatch):
    sizes = dinov2.FAMILY.sizes
    monkeypatch.setitem(sizes, "tiny", sizes["tiny"]._replace(repository=NAME))
    spec = build_teacher("dinov2:tiny", weights="hub").spec
    assert spec.weights_source == f"{NAME}@{hub.commit(NAME)}"
    pinned = build_teacher("dinov2:tiny", weights=f"hub@{hub.commit(NAME)}").spec
    assert pinned.weights_digest == spec.weights_digest


def test_fetching_takes_a_revision(hub, tmp_path):
    folder = fetch_weights(f"hf:{NAME}", tmp_path / "to", "v1")
    assert json.loads((folder / "difom-hub.json").read_text())["revision"] == "v1"
    with pytest.raises(WeightsError, match="no revision 'v9'"):
        fetch_weights(f"hf:{NAME}", tmp_path / "other", "v9")
