"""The errors, by the name that users import them by; they stand in `base`."""

from difom_cache.base.errors import *  # noqa: F403
