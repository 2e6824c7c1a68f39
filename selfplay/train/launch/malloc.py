"""Tuning of glibc's malloc for training on a CPU: freed memory stays in the process.

By default glibc returns every large freed block to the kernel, and the next step faults its pages in again. Activations
are hundreds of megabytes; without these returns training runs at 1.15 times the tokens/s (`bench/speed/training.py`).
"""

from __future__ import annotations

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # <malloc.h>
_LARGEST = 2**31 - 1
"""Largest threshold in bytes: mallopt takes an int."""


def tune_malloc() -> bool:
    """Raise malloc's thresholds. Returns False where the C library has no mallopt (it is not glibc)."""
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, _LARGEST), (_M_TRIM_THRESHOLD, _LARGEST), (_M_TOP_PAD, 2**28))
    return all(bool(mallopt(name, value)) for name, value in settings)
