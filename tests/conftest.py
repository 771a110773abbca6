"""What several test files share."""

from collections.abc import Callable

import pytest
from memory_cache import MemoryCache


@pytest.fixture
def make_cache() -> Callable[..., MemoryCache]:
    """Return a builder of small caches in memory."""
    return MemoryCache
