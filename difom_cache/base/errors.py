"""Everything that a user can fix raises from one family; a command prints it as one line and exits with 2.

DifomError
├── DataError               pictures, masks, folders
│   ├── ImageError          one file that cannot be read as it should
│   ├── AnnotationError     what a COCO file draws on one image, and cannot be drawn
│   └── ManifestError       the table of records
├── SettingsError           an option, a name or a value that does not exist
├── DeviceError             a device or its memory
├── WeightsError            a teacher's or student's weights
├── TeacherError            what a teacher was given, or gave
├── CodecError              a feature that does not fit its code, or a code that does not fit its tap
│   └── UncodableFeatureError  NaN, infinity or a value beyond the code (codecs/base.py)
├── CacheError
│   ├── CacheIdentityError  the cache holds something else than this run would write
│   ├── CacheFormatError    not a cache, or of another format version
│   ├── CacheIncompleteError  views or taps that are not there (yet)
│   ├── CacheDamagedError   bytes that are not what their marker says
│   └── CacheSpaceError     no room, or not writable
├── StorageError            a file system that cannot say what a file holds, as while a server is away
├── EngineError             workers, schedulers
└── RunError                a training run's folder
"""

import warnings
from difflib import get_close_matches


class DifomError(Exception):
    """A problem that the user can fix: the message says what, where and how."""


class DifomWarning(UserWarning):
    """Something is odd, and the work goes on; a command prints it as one line."""


class DataError(DifomError):
    """Pictures, masks or folders are not as expected."""


class ImageError(DataError):
    """One file cannot be read as a picture or mask."""


class AnnotationError(DataError):
    """What a COCO file says of one image makes no mask; its other images may be fine."""


class ManifestError(DataError):
    """A table of records is wrong, or its files changed since."""


class SettingsError(DifomError):
    """An option, name or value does not exist or does not fit."""


class DeviceError(DifomError):
    """A device is absent or out of memory."""


class WeightsError(DifomError):
    """Weights are missing, damaged or another network's."""


class TeacherError(DifomError):
    """A teacher cannot take this input, or gave features that cannot be used."""


class CodecError(DifomError):
    """A feature does not fit its code, or a code does not fit its tap."""


class CacheError(DifomError):
    """A cache cannot be used as asked."""


class CacheIdentityError(CacheError):
    """The cache holds something else than this run would write."""


class CacheFormatError(CacheError):
    """The folder is no cache, or one of another format version."""


class CacheIncompleteError(CacheError):
    """Views or taps that were asked for are not in the cache."""


class CacheDamagedError(CacheError):
    """Bytes differ from what their marker promises."""


class CacheSpaceError(CacheError):
    """There is no room for the cache, or it cannot be written."""


class StorageError(DifomError):
    """A file system cannot say what lies there or what it holds; nothing is known, and nothing was changed."""


class EngineError(DifomError):
    """Workers or their scheduler cannot do the work."""


class RunError(DifomError):
    """A training run's folder cannot be used as asked."""


def name_nearest(kind: str, name: str, known: list[str]) -> str:
    """Return one sentence that refuses `name` and names the nearest of `known`.

    Args:
        kind: what is being named, such as "teacher".
        name: what the user wrote.
        known: every name that exists; of more than 40 the nearest are shown.
    """
    near = get_close_matches(name, known, n=8, cutoff=0.4)
    shown = ", ".join(sorted(known) if len(known) <= 40 else [*(near or known[:8]), "..."])
    return f"there is no {kind} {name!r}; {f'did you mean {near[0]!r}? ' if near else ''}known: {shown}"


def install_extra(extra: str) -> str:
    """Return how an extra is installed: the one place that says it, from a checkout until there is a package to name."""
    return f"run pip install '.[{extra}]' in the project's checkout"


def warn(text: str) -> None:
    """Warn the user in one line."""
    warnings.warn(text, DifomWarning, stacklevel=3)
