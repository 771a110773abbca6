"""Published weights into a folder, for machines without network."""

from importlib import import_module
from pathlib import Path

from difom_cache.errors import SettingsError
from difom_cache.teachers.base import choose_variant
from difom_cache.teachers.catalogue import MODULES, find_builder, parse_teacher
from difom_cache.teachers.download import download
from difom_cache.teachers.hub_cache import Repository
from difom_cache.teachers.weights import MAIN, folder_name


def fetch_weights(teacher: str, to: Path, revision: str = MAIN) -> Path:
    """Download a teacher's published weights below `to`, and return the folder they are in.

    Args:
        teacher: "NAME[:VARIANT]", or "hf:MODEL".
        revision: branch, tag or commit of the hub model.
        to: set DIFOM_WEIGHTS to it where there is no network, or pass the returned folder as weights.

    Raises:
        SettingsError: an unknown teacher or variant, or one without published weights.
        WeightsError: the hub cannot be reached, has no such model, or wants a token for it.
    """
    name, variant, _ = parse_teacher(teacher)
    if name == "hf":
        full, repository = f"hf:{variant}", variant
    elif name in MODULES and name != "onnx":
        entries = {entry.variant: entry for entry in import_module(MODULES[name]).describe()}
        default = next((entry.variant for entry in entries.values() if entry.is_default), "")
        chosen = choose_variant(name, variant or default, entries)
        full, repository = f"{name}:{chosen}", entries[chosen].repository
    else:
        find_builder(name)
        full, repository = teacher, ""
    if not repository:
        raise SettingsError(f"{full} has no published weights to fetch")
    return download(full, Repository(repository, revision), to / folder_name(full))
