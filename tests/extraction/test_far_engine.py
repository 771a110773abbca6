"""What computes a column elsewhere is found out there: the machine that hands out the work may have no GPU."""

import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from painted_folder import paint_folder
from pretend_gpu import pretend_gpu

from difom_cache import extract, open_cache
from difom_cache.errors import EngineError
from difom_cache.extraction import ENGINES

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="the machine that hands out the work has no GPU here")
SMALL: dict[str, Any] = {"teacher": "dinov2:tiny@56", "weights": "random", "input_size": 64, "views": 2, "quiet": True}


class Nodes(Executor):
    """Runs each task on a node of its own, at once; `gpus` says which nodes have a GPU, the last one of all further ones."""

    def __init__(self, *gpus: bool) -> None:
        self.gpus = list(gpus)

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        has_gpu = self.gpus.pop(0) if len(self.gpus) > 1 else self.gpus[0]
        future: Future[Any] = Future()
        try:
            with pretend_gpu() if has_gpu else nullcontext():
                future.set_result(pickle.loads(pickle.dumps(call(*pickle.loads(pickle.dumps(args))))))
        except EngineError as error:
            future.set_exception(error)
        return future


@pytest.fixture
def nodes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def set_nodes(*gpus: bool) -> None:
        @contextmanager
        def open_nodes(options: object) -> Iterator[Executor]:
            yield Nodes(*gpus)

        monkeypatch.setitem(ENGINES, "dask", open_nodes)

    return set_nodes


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_workers_with_gpus_compute_on_them(device: str, nodes: Callable[..., None], tmp_path: Path) -> None:
    nodes(True)
    data = paint_folder(tmp_path / "data", frames=4)
    assert extract(data=data, cache=tmp_path / "feats", engine="dask", device=device, **SMALL).complete
    (identity,) = open_cache(tmp_path / "feats").teachers.values()
    assert (identity.device, identity.teacher.precision) == ("cuda", "bfloat16")
    assert identity.batch > 8, "a batch that fits a GPU, and not a CPU's"


def test_a_worker_of_another_kind_than_the_first_stops_and_names_both(
    nodes: Callable[..., None], tmp_path: Path
) -> None:
    nodes(True, False)
    data = paint_folder(tmp_path / "data", frames=4)
    with pytest.raises(
        EngineError, match=r"worker .* computes on cpu, but .*teachers/dinov2-tiny-random was begun on cuda"
    ):
        extract(data=data, cache=tmp_path / "feats", engine="dask", **SMALL, pictures=False)
    assert not open_cache(tmp_path / "feats").finished_rows(pictures=False).any()
