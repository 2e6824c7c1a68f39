"""Bootstrap intervals of 95 % over conversations, the unit that was sampled (Efron, 1979; percentile method).

The module does not know what a conversation is: callers give a number of units and a statistic of their indices. Turns
of one conversation are not independent, so intervals over turns would be too narrow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESAMPLES = 1000
SUBSAMPLES = 200


@dataclass(frozen=True, slots=True)
class Measurement:
    """A figure with its 95 % interval and the number of conversations it was computed from."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] n={self.n}"


def bootstrap(n: int, statistic: Callable[[NDArray[np.intp]], float], seed: int = 0) -> Measurement:
    """Interval of a statistic: resample `n` conversations with replacement and recompute it on their indices (n,).

    Raises:
        ValueError: `n` is 0.
    """
    import numpy as np

    if n == 0:
        raise ValueError("no conversations to compute an interval over")
    draws = np.random.default_rng(seed)
    values = [statistic(draws.integers(0, n, n)) for _ in range(RESAMPLES)]
    low, high = np.percentile(values, [2.5, 97.5])
    return Measurement(statistic(np.arange(n)), float(low), float(high), n)


def subsampled(n: int, statistic: Callable[[NDArray[np.intp]], float], seed: int = 0) -> Measurement:
    """Interval of a statistic that drawing with replacement would bias, such as a share of distinct items.

    The statistic is recomputed on subsamples of two thirds, drawn without replacement, and their spread is scaled to
    the full size (Politis and Romano, 1994).

    Raises:
        ValueError: `n` is 0.
    """
    import numpy as np

    if n == 0:
        raise ValueError("nothing to compute an interval over")
    draws = np.random.default_rng(seed)
    size = max(1, 2 * n // 3)
    values = [statistic(draws.permutation(n)[:size]) for _ in range(SUBSAMPLES)]
    value = statistic(np.arange(n))
    # One conversation has no smaller subsample; its interval is the figure itself.
    scale = (size / n / (1 - size / n)) ** 0.5 if size < n else 0.0
    low, high = (np.percentile(values, [2.5, 97.5]) - np.mean(values)) * scale + value
    return Measurement(value, float(low), float(high), n)


def between(
    n: int, m: int, statistic: Callable[[NDArray[np.intp], NDArray[np.intp]], float], seed: int = 0
) -> Measurement:
    """Interval of a distance between two samples of `n` and `m` conversations, each resampled by itself.

    Resampling makes two samples differ more than they do, so the interval is shifted by the difference between the mean
    resampled distance and the measured one (Efron and Tibshirani 1993, chapter 10), and does not go below 0. The `n` of
    the result is `m`.

    Raises:
        ValueError: `n` or `m` is 0.
    """
    import numpy as np

    if not n or not m:
        raise ValueError("no conversations to compare")
    draws = np.random.default_rng(seed)
    values = [statistic(draws.integers(0, n, n), draws.integers(0, m, m)) for _ in range(RESAMPLES)]
    value = statistic(np.arange(n), np.arange(m))
    low, high = np.percentile(values, [2.5, 97.5]) - np.mean(values) + value
    return Measurement(value, max(0.0, float(low)), float(high), m)


def ratio(numerators: NDArray[np.float64], denominators: NDArray[np.float64], seed: int = 0) -> Measurement:
    """Sum over sum with its interval, as for bits per byte: a conversation weighs by its size. Shapes (n,), (n,)."""
    return bootstrap(
        len(numerators), lambda rows: float(numerators[rows].sum() / max(denominators[rows].sum(), 1e-9)), seed
    )
