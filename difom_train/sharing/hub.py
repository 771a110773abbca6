"""Runs on the Hugging Face hub: student, settings, card and ONNX file go there, and nothing else; they come back as a run."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import tomli_w
from huggingface_hub import HfApi, constants, get_session

from difom_cache.base.errors import RunError, SettingsError
from difom_cache.base.outputs import check_out_folder, check_outputs
from difom_cache.base.progress import explain_wait, say
from difom_cache.base.text import format_bytes
from difom_cache.teachers import Repository, explain_hub, fetch_files, retry
from difom_train.commands import PullConfig, PushConfig
from difom_train.config import SETTINGS_FILE
from difom_train.inference.export import export
from difom_train.sharing.card import describe_run
from difom_train.students.saved import SETTINGS_FILE as STUDENT_FILE
from difom_train.students.saved import WEIGHTS_FILE
from difom_train.training.run_folder import RUN_FILE, find_run, read_public_settings

CARD_FILE, ONNX_FILE = "README.md", "student.onnx"
FILES = (CARD_FILE, STUDENT_FILE, WEIGHTS_FILE, SETTINGS_FILE, RUN_FILE, ONNX_FILE)
FACTS = {"versions", "seed", "datasets", "rows", "masks", "taps", "teachers", "random_teachers", "revision", "status"}
FACTS |= {"epochs_done", "best_epoch", "best_val_dice", "parameters"}
"""What goes along of run.json: no command, path or machine, and no digest of an image or mask."""


def push(config: PushConfig) -> str:
    """Upload a run's student with its card, settings and ONNX file, each of which is listed first; return where it lies.

    Raises:
        SettingsError: a teacher's licence does not say that the student may be passed on, and `licence` is not given; or the
            model is public, and `public` is not given.
        RunError: the run holds no student, or its scores are of other weights.
        WeightsError: the hub does not take it.
    """
    with TemporaryDirectory() as place:
        folder = Path(place)
        gather(config, folder)
        for path in sorted(folder.iterdir()):
            say(f"{path.name}: {format_bytes(path.stat().st_size)}")
        if config.dry_run:
            return f"nothing was uploaded to {config.repo}: --dry-run"
        with explain_hub("push", Repository(config.repo), "try again later", doing="push to {} at"):
            return upload(config, folder)


def gather(config: PushConfig, folder: Path) -> None:
    """Write into `folder` all that is uploaded."""
    run, whole = config.run, all(map(find_spec, ("onnx", "onnxruntime", "onnxscript")))
    if config.onnx and not whole:
        say("no student.onnx: the extra onnx is not installed")
    onnx = config.onnx and whole
    card, unclear = describe_run(run, licence=config.licence, repo=config.repo, onnx=onnx, student=config.student)
    if unclear and config.licence is None:
        raise SettingsError(
            f"{run} is not uploaded: nothing here says that what learnt from {', '.join(unclear)} may be passed on; read the "
            "teacher's licence, and name one that it allows with --licence"
        )
    (folder / CARD_FILE).write_text(card, encoding="utf-8")
    for name in (STUDENT_FILE, WEIGHTS_FILE):
        shutil.copyfile(run / name, folder / name)
    if settings := read_public_settings(run):
        (folder / SETTINGS_FILE).write_text(tomli_w.dumps(settings), encoding="utf-8")
    if facts := {name: value for name, value in find_run(run).items() if name in FACTS}:
        (folder / RUN_FILE).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    if onnx:
        export(run, out=folder / ONNX_FILE, anonymous=True, student=config.student)


def upload(config: PushConfig, folder: Path) -> str:
    """Make the model where there is none, upload the folder, and return the commit's address."""
    api, name, client = HfApi(), config.repo, get_session()
    wait_s = constants.HF_HUB_DOWNLOAD_TIMEOUT
    before, client.timeout = client.timeout, wait_s  # the client's own is none
    try:
        with explain_wait(f"uploading to {constants.ENDPOINT}/{name}"):
            retry(lambda: api.create_repo(name, private=not config.public, exist_ok=True))
            if not config.public and not retry(lambda: api.model_info(name, timeout=wait_s)).private:
                raise SettingsError(f"{name} is public already; upload with --public, or to another model")
            done = api.upload_folder(repo_id=name, folder_path=folder, delete_patterns=list(FILES))
            return str(done.commit_url)
    except ValueError as error:  # of a head that the hub does not take, such as a licence that it does not know
        raise SettingsError(f"push: {' '.join(str(error).split())}") from error
    except RuntimeError as error:  # the client wraps what became of a file so
        raise error.__cause__ or error from None
    finally:
        client.timeout = before


def pull(config: PullConfig) -> Path:
    """Bring a run that `push` uploaded into a folder that `evaluate`, `predict` and `export` open, and return it.

    Raises:
        SettingsError: the folder cannot be written, or holds such files already.
        WeightsError: the hub cannot give it.
        RunError: the model holds no student of this package.
    """
    out = config.out or Path("runs") / config.repo.rpartition("/")[2]
    check_out_folder(out)
    check_outputs(out, [out / name for name in FILES], [], force=config.force)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".tmp-", dir=out.parent) as place:
        found = fetch_files(Repository(config.repo, config.revision), FILES, Path(place))
        if not {STUDENT_FILE, WEIGHTS_FILE} <= {*found}:
            raise RunError(f"{config.repo} holds no {STUDENT_FILE} and {WEIGHTS_FILE}, so `push` did not make it")
        out.mkdir(exist_ok=True)
        for name in FILES:
            (out / name).unlink(missing_ok=True)  # what --force replaces, whole
        for name in found:
            (Path(place) / name).replace(out / name)
    return out
