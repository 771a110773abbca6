"""The C library's heap, as networks on a CPU want it: what a step has freed, the next step takes again."""

import ctypes
import os
import platform
from collections.abc import Mapping

LEAVE = "DIFOM_HEAP"
"""The environment variable which, set to "system", leaves the heap as the C library has it."""
# malloc.h of glibc: from where memory goes back, by how much the heap grows, how many blocks are mapped alone.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4
_NEVER, _TOP_PAD_BYTES = -1, 64 << 20


def keep_freed_memory(environment: Mapping[str, str] = os.environ) -> bool:
    """Make glibc keep what is freed; return whether it does.

    By itself it maps every large tensor alone and unmaps it when it is freed, so that the kernel hands out, and clears, fresh
    pages at every step: a quarter of a training step's time. This holds for the whole process and was
    measured for training, so commands that train do it and the library's functions do not; a program that calls them may.
    Nothing changes where the user chose for himself (DIFOM_HEAP or glibc's own MALLOC_ variables), or on another C library.
    """
    chosen = environment.get(LEAVE) == "system" or any(name.startswith("MALLOC_") for name in environment)
    if chosen or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _NEVER), (_TOP_PAD, _TOP_PAD_BYTES))
    taken = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings]
    return all(each == 1 for each in taken)


def return_freed_memory() -> None:
    """Give the kernel back what the process has freed, where the C library is glibc: before memory is measured."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
