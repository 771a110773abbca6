"""What several test files share."""

import os
from collections.abc import Callable, Iterator

import pytest
from memory_cache import MemoryCache


@pytest.fixture(autouse=True, scope="session")
def own_user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what commands remember of decoded files out of the home of whoever runs the tests."""
    before = os.environ.get("XDG_CACHE_HOME")
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("user-cache"))
    yield
    if before is None:
        del os.environ["XDG_CACHE_HOME"]
    else:
        os.environ["XDG_CACHE_HOME"] = before


@pytest.fixture
def make_cache() -> Callable[..., MemoryCache]:
    """Return a builder of small caches in memory."""
    return MemoryCache
