"""A process for all tests of a file, whose children begin at work and not with the loading of libraries."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import PIPE
from typing import Any

import pytest


@pytest.fixture(scope="module")
def nursery() -> Iterator[Callable[..., dict[str, Any]]]:
    """Return what asks nursery.py."""
    script = Path(__file__).with_name("nursery.py")
    alone = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen([sys.executable, script], env=alone, stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdin and process.stdout
        questions, answers = process.stdin, process.stdout

        def ask(**question: Any) -> dict[str, Any]:
            questions.write(json.dumps(question) + "\n")
            questions.flush()
            line = answers.readline()
            assert line, "the nursery ended; its words are on the standard error"
            answer: dict[str, Any] = json.loads(line)
            return answer

        yield ask
        questions.close()
