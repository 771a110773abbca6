"""The standing attack: `make attack` runs every case and prints a table; exit code 1 where one was mishandled or left out.

python tests/hostile/attack.py [--every N] [--class NAME] [--limit N]
"""

import argparse
import os
import signal
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from cases import CLASSES
from ground import Verdict, try_case
from sound import make_sound

from difom_cache.base.text import format_table


def main() -> None:
    """Run the cases that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="run every N-th case of a class")
    parser.add_argument("--class", dest="kinds", action="append", choices=list(CLASSES), help="this class; may repeat")
    parser.add_argument("--start", type=int, default=0, help="the first case of a class")
    parser.add_argument("--limit", type=int, default=None, help="cases of each class")
    parser.add_argument(
        "--sound", type=Path, default=None, help="folder of the sound things, made where it is not there"
    )
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="difom-attack-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder, "user"))
        sound = asked.sound or Path(folder, "sound")
        if not sound.exists():
            make_sound(sound)
        rows, mishandled, whole = [("class", "tried", "mishandled", "s")], 0, False
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        with suppress(KeyboardInterrupt):  # what was tried until then is told
            for kind in asked.kinds or CLASSES:
                started_s = time.monotonic()
                rows.append((kind, "0", "0", "0"))
                tried, bad = 0, 0
                for number, case in enumerate(CLASSES[kind](sound)):
                    if number < asked.start or (number - asked.start) % asked.every:
                        continue
                    if asked.limit is not None and tried >= asked.limit:
                        break
                    verdict = try_case(case, sound, Path(folder, f"case-{kind.replace(' ', '-')}-{number}"))
                    tried += 1
                    if verdict.wrong:
                        bad += 1
                        mishandled += 1
                        show(verdict)
                    rows[-1] = (kind, str(tried), str(bad), f"{time.monotonic() - started_s:.0f}")
            whole = True
        rows.append(("all", str(sum(int(row[1]) for row in rows[1:])), str(mishandled), ""))
        print(format_table(rows))
    sys.exit(0 if whole and not mishandled else 1)


def show(verdict: Verdict) -> None:
    """Print one case that was mishandled."""
    print(f"MISHANDLED {verdict.case.kind}: {verdict.case.name}\n    {verdict.wrong}", flush=True)


if __name__ == "__main__":
    main()
