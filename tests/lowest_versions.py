"""As a program it prints the lowest version that pyproject.toml allows of every library, as constraints for pip.

It runs before anything is installed, with the standard library alone.
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEVELOPERS = ("all", "docs", "dev")  # extras that users do not install


def list_lowest(project: dict[str, Any]) -> Iterator[str]:
    """Yield "name==version" of each dependency, those of extras too."""
    extras = (lines for name, lines in project["optional-dependencies"].items() if name not in DEVELOPERS)
    for line in [*project["dependencies"], *(line for lines in extras for line in lines)]:
        found = re.match(r"([\w-]+)(?:\[[^]]*\])?>=([\w.]+)", line)
        assert found, f"{line} has no lower bound"
        yield f"{found[1]}=={found[2]}"


if __name__ == "__main__":
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text("utf-8")
    print("\n".join(list_lowest(tomllib.loads(text)["project"])))
