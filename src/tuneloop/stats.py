"""Intervals, paired tests, corrections for many tests, and the size of difference a sample can show."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_POWER = 0.8


def _quantile(p: float) -> float:
    """Standard normal quantile (`statistics.NormalDist`, so that importing this module stays cheap)."""
    from statistics import NormalDist

    return NormalDist().inv_cdf(p)


def wilson(k: float, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Wilson score interval of the proportion k/n, as shares in [0, 1]; (0, 1) when n is 0. Source: Wilson 1927."""
    if n <= 0:
        return 0.0, 1.0
    z = _quantile(1 - alpha / 2)
    p = k / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(max(p * (1 - p), 0.0) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def mean_interval(values: Sequence[float], alpha: float = 0.05) -> tuple[float, float, float, float]:
    """(mean, standard error, low, high) by Student's t; one value has no error, so its last three are NaN."""
    x = np.asarray(values, dtype=np.float64)
    if x.size == 0:
        return math.nan, math.nan, math.nan, math.nan
    mean = float(x.mean())
    if x.size == 1:
        return mean, math.nan, math.nan, math.nan
    from scipy.stats import t

    error = float(x.std(ddof=1) / math.sqrt(x.size))
    half = float(t.ppf(1 - alpha / 2, x.size - 1)) * error
    return mean, error, mean - half, mean + half


def mcnemar_exact(b: int, c: int) -> float:
    """Two-sided exact McNemar p of b right-to-wrong and c wrong-to-right rows; 1.0 when no row changed."""
    from scipy.stats import binom

    n = b + c
    if n == 0:
        return 1.0
    return min(1.0, 2.0 * float(binom.cdf(min(b, c), n, 0.5)))


def mcnemar_midp(b: int, c: int) -> float:
    """McNemar with mid-p: less conservative than the exact test. Source: Fagerland, Lydersen, Laake 2013."""
    from scipy.stats import binom

    n = b + c
    if n == 0:
        return 1.0
    k = min(b, c)
    return min(1.0, 2.0 * float(binom.cdf(k, n, 0.5)) - float(binom.pmf(k, n, 0.5)))


def _resampled(x: Any, rng: Any, n: int, *, signs: bool) -> Any:
    """n resampled means of x, in blocks that bound memory: sign flips (test) or draws with replacement (interval)."""
    means = np.empty(n, dtype=np.float64)
    block = max(1, 2_000_000 // max(1, x.size))
    for start in range(0, n, block):
        rows = min(block, n - start)
        if signs:
            flips = rng.integers(0, 2, size=(rows, x.size), dtype=np.int8) * 2 - 1
            means[start : start + rows] = (flips @ x) / x.size
        else:
            means[start : start + rows] = x[rng.integers(0, x.size, size=(rows, x.size))].mean(axis=1)
    return means


def paired_bootstrap(diffs: Sequence[float], seed: int = 0, n: int = 10_000) -> tuple[float, float, float]:
    """(low, high, p) of the mean of paired differences.

    The interval is the 95 % percentile bootstrap; p is the two-sided sign-flip permutation p, counted with the
    observed arrangement itself so that it is never 0. No difference at all gives (0, 0, 1); no row (NaN, NaN, 1).
    """
    x = np.asarray(diffs, dtype=np.float64)
    if x.size == 0:
        return math.nan, math.nan, 1.0
    if not x.any():
        return 0.0, 0.0, 1.0
    rng = np.random.default_rng(seed)
    low, high = np.quantile(_resampled(x, rng, n, signs=False), [0.025, 0.975])
    # Rounding in sums must not make an equally extreme arrangement look less extreme.
    seen = abs(float(x.mean())) * (1 - 1e-9)
    extreme = int((np.abs(_resampled(x, rng, n, signs=True)) >= seen).sum())
    return float(low), float(high), (extreme + 1) / (n + 1)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm step-down adjusted p values, in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted = [0.0] * len(ps)
    highest = 0.0
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, ps[i] * (len(ps) - rank)))
        adjusted[i] = highest
    return adjusted


def benjamini_hochberg(ps: Sequence[float]) -> list[float]:
    """Benjamini-Hochberg adjusted p values (false discovery rate), in the order given."""
    order = sorted(range(len(ps)), key=lambda i: ps[i], reverse=True)
    adjusted = [0.0] * len(ps)
    lowest = 1.0
    for back, i in enumerate(order):
        lowest = min(lowest, ps[i] * len(ps) / (len(ps) - back))
        adjusted[i] = lowest
    return adjusted


def detectable_paired(sd: float, n: int, alpha: float = 0.05) -> float:
    """Smallest true mean difference found with 80 % power by a two-sided paired test, in the unit of `sd`."""
    if n <= 0:
        return math.nan
    return (_quantile(1 - alpha / 2) + _quantile(_POWER)) * sd / math.sqrt(n)


def detectable_difference(n: int, flip_share: float, alpha: float = 0.05) -> float:
    """Smallest accuracy difference (a share) that n paired rows of which `flip_share` change can show.

    The variance of a paired 0/1 difference is at most the share of rows that flip.
    """
    return detectable_paired(math.sqrt(max(0.0, flip_share)), n, alpha)
