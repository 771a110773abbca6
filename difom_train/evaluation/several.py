"""Several networks are scored on the same test sets, one after the other."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difom_cache.base.errors import SettingsError
from difom_cache.base.progress import say
from difom_train.commands import EvaluateConfig
from difom_train.evaluation.evaluate import Evaluation, evaluate
from difom_train.evaluation.files import file_name
from difom_train.inference.segmenter import is_named
from difom_train.training.run_folder import describe_unfinished


@dataclass(frozen=True)
class Evaluations:
    """The scores of some networks, in the order in which they were named."""

    each: tuple[Evaluation, ...]

    def render(self) -> str:
        """Return the tables of all."""
        return "\n\n".join(one.render() for one in self.each)

    def as_json(self) -> Any:
        """Return the same for a program: of one network its scores, of several a list of them."""
        return self.each[0].as_json() if len(self.each) == 1 else [one.as_json() for one in self.each]


def evaluate_runs(config: EvaluateConfig) -> Evaluations:
    """Score each of some networks as `evaluate` does; a run that is not finished is scored, and said to be none.

    Raises:
        SettingsError: two networks would write to one folder.
        DifomError: what `evaluate` raises.
    """
    names = [name_of(run) for run in config.runs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice and (config.out is not None or config.maps is not None):
        raise SettingsError(f"two runs are called {', '.join(twice)} and would share a folder of --out or --maps")
    config.describe_source(config.data)  # a question without data is answered before any network is loaded
    for run in config.runs:
        if line := "" if is_named(run) else describe_unfinished(Path(run)):
            say(f"NOTE: {line}")
    return Evaluations(
        tuple(evaluate(_narrow(config, run, name)) for run, name in zip(config.runs, names, strict=True))
    )


def _narrow(config: EvaluateConfig, run: str, name: str) -> EvaluateConfig:
    """Return the config of one of the networks: of several, each has folders of its own."""
    places = {"out": config.out, "maps": config.maps}
    if len(config.runs) > 1:
        places = {key: place and place / name for key, place in places.items()}
    return config.model_copy(update={"runs": (run,), **places})


def name_of(run: Path | str) -> str:
    """Return what a network is called as a folder."""
    text = str(run)
    return file_name(text) if is_named(run) else Path(run).resolve().name
