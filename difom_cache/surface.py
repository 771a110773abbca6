"""A package's public names, each loaded when it is first used, so that importing the package stays quick."""

import sys
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def expose(package: str, homes: Mapping[str, str]) -> list[str]:
    """Make every name in `homes` an attribute of `package`; return the names in order.

    A function may share its name with the file it lives in (`difom_cache.extract` in extract.py). Importing that file would
    put the module in the function's place, so the names are properties of the package, which imports cannot overwrite.

    Args:
        package: its full name; it is being imported right now.
        homes: public name to the module, inside the package, that defines it.
    """

    def property_of(name: str) -> property:
        def load(_: ModuleType) -> Any:
            return getattr(import_module(f"{package}.{homes[name]}"), name)

        return property(load, lambda _, module: None)

    properties = {name: property_of(name) for name in homes}
    sys.modules[package].__class__ = type("Package", (ModuleType,), properties)
    return sorted(homes)
