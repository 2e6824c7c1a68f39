"""Keeps freed memory in the process while a CPU trains.

glibc hands every large freed block back to the kernel and faults it in again at the next step; with activations of
hundreds of megabytes that is felt (1.15 times the tokens/s without it, by `bench/speed/training.py`).
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
_LARGEST = 2**31 - 1
"""Bytes; mallopt takes an int."""


def tune_malloc() -> bool:
    """Raise malloc's thresholds; False where the C library has none (not glibc)."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, 2**28))
    return all(bool(mallopt(name, value)) for name, value in settings)
