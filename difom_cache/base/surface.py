"""The public names of a package: what its stub lists, loaded when first used, and for one release what it listed before."""

import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import lazy_loader


def attach(
    package: str, file: str, moved: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """Return `__getattr__`, `__dir__` and `__all__` of a package.

    Args:
        package: its name.
        file: its `__file__`, beside which `__init__.pyi` lies.
        moved: names that it offered in the release before, in a line for each module that has them now.
    """
    load, listed, names = lazy_loader.attach_stub(package, file)
    places = {name: module for module, line in moved.items() for name in line.split()}

    def load_or_warn(name: str) -> Any:
        if name not in places:
            return _sign(load(name), package)
        warnings.warn(
            f"{package}.{name} is {places[name]}.{name} now; the old name goes with the next release",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(import_module(places[name]), name)

    return load_or_warn, listed, names


def _sign(found: Any, package: str) -> Any:
    """Return what was found; a function whose options are a command's has them in its signature from now on."""
    kind = str(getattr(found, "__annotations__", {}).get("options"))
    if kind.startswith("Unpack[") and not hasattr(found, "__signature__"):
        from difom_cache.base.options import find_config, sign  # late: no function is loaded without it

        place = import_module(f"{package}.config").KEYWORDS[kind[len("Unpack[") : -1]]
        found.__signature__ = sign(found, find_config(place))
    return found
