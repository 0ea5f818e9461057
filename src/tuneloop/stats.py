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


def wilson(k: float, n: float, alpha: float = 0.05) -> tuple[float, float]:
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


def clustered_interval(
    values: Sequence[float], clusters: Sequence[str], alpha: float = 0.05
) -> tuple[float, float, float, float]:
    """(mean, standard error, low, high) where rows of one cluster (a source, a passage) are not independent.

    The error sums residuals inside each cluster before squaring, with the correction k / (k - 1) for k clusters, and
    Student's t has k - 1 degrees of freedom. One cluster has no error (NaN). Source: Miller 2024, arXiv 2411.00640.
    """
    x = np.asarray(values, dtype=np.float64)
    mean = float(x.mean()) if x.size else math.nan
    sums = _cluster_sums(x - mean, clusters) if x.size else np.empty(0)
    k = sums.size
    if k < 2:
        return mean, math.nan, math.nan, math.nan
    from scipy.stats import t

    error = float(math.sqrt(float((sums**2).sum()) * k / (k - 1)) / x.size)
    half = float(t.ppf(1 - alpha / 2, k - 1)) * error
    return mean, error, mean - half, mean + half


def _cluster_sums(x: Any, clusters: Sequence[str]) -> Any:
    """The sum of x in each cluster, in order of first appearance."""
    places: dict[str, int] = {}
    index = np.array([places.setdefault(name, len(places)) for name in clusters], dtype=np.int64)
    return np.bincount(index, weights=x, minlength=len(places))


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


def paired_clustered(
    diffs: Sequence[float], clusters: Sequence[str], seed: int = 0, n: int = 10_000
) -> tuple[float, float, float]:
    """(low, high, p) of the mean of paired differences when rows of one cluster move together.

    As `paired_bootstrap`, with whole clusters resampled and whole clusters flipped in sign.
    """
    x = np.asarray(diffs, dtype=np.float64)
    if x.size == 0:
        return math.nan, math.nan, 1.0
    sums = _cluster_sums(x, clusters)
    if not x.any() or sums.size < 2:
        return (0.0, 0.0, 1.0) if not x.any() else (math.nan, math.nan, 1.0)
    sizes = _cluster_sums(np.ones_like(x), clusters)
    rng = np.random.default_rng(seed)
    means = np.empty(n)
    for start in range(0, n, 500):
        drawn = rng.integers(0, sums.size, size=(min(500, n - start), sums.size))
        means[start : start + len(drawn)] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    seen = abs(float(sums.mean())) * (1 - 1e-9)
    extreme = int((np.abs(_resampled(sums, rng, n, signs=True)) >= seen).sum())
    return float(low), float(high), (extreme + 1) / (n + 1)


def difference_interval(b: int, c: int, n: int, alpha: float = 0.05) -> tuple[float, float]:
    """Interval of the paired difference (c - b) / n of shares. Source: Bonett and Price 2012 (adjusted Wald)."""
    if n <= 0:
        return math.nan, math.nan
    worse, better = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = _quantile(1 - alpha / 2) * math.sqrt(max(worse + better - (better - worse) ** 2, 0.0) / (n + 2))
    return max(-1.0, better - worse - half), min(1.0, better - worse + half)


def paired(
    before: Sequence[float], after: Sequence[float], clusters: Sequence[str] | None = None, seed: int = 0
) -> dict[str, Any]:
    """The paired comparison of two scores on the same rows: n, clusters, before, after, diff, low, high, p, test, b, c,
    detectable; with the exact McNemar test also p_mid, which is less conservative and decides nothing.

    0/1 scores take the exact McNemar test (b right to wrong, c wrong to right), others a sign-flip permutation; where
    `clusters` holds rows together, whole clusters are permuted (their number is told, None elsewhere). `p` is one
    test's, uncorrected; `detectable` is the true difference that this many rows would show four times out of five,
    None where it cannot be known.
    """
    x, y = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    diffs, n = y - x, int(y.size)
    grouped = clusters is not None and len(set(clusters)) < n
    entry: dict[str, Any] = {"n": n, "clusters": len(set(clusters)) if grouped and clusters is not None else None}
    entry |= {"before": float(x.mean()), "after": float(y.mean()), "diff": float(diffs.mean())}
    binary = bool(np.isin(np.concatenate([x, y]), (0.0, 1.0)).all())
    b, c = int((diffs < 0).sum()), int((diffs > 0).sum())
    spread = float(diffs.std(ddof=1)) if n > 1 else math.inf
    if grouped and clusters is not None:
        low, high, p = paired_clustered(diffs.tolist(), clusters, seed)
        error = clustered_interval(diffs.tolist(), clusters)[1]
        sure = (_quantile(0.975) + _quantile(_POWER)) * error
        entry["test"] = "clustered permutation"
    elif binary:
        (low, high), p = difference_interval(b, c, n), mcnemar_exact(b, c)
        entry["p_mid"] = mcnemar_midp(b, c)
        # Planning wants some share of flips even where none was seen.
        sure = detectable_difference(n, max(b + c, 1) / n)
        entry["test"] = "exact McNemar"
    else:
        low, high, p = paired_bootstrap(diffs.tolist(), seed)
        sure = detectable_paired(spread, n)
        entry["test"] = "paired permutation"
    flips = {"b": b if binary else None, "c": c if binary else None}
    return entry | flips | {"low": low, "high": high, "p": p, "detectable": sure if math.isfinite(sure) else None}


def verdict(p_adjusted: float, diff: float, alpha: float = 0.05) -> str:
    """The plain word for a corrected paired test; nothing else decides it."""
    if p_adjusted > alpha or diff == 0:
        return "no detectable difference"
    return "better" if diff > 0 else "worse"


def holm(ps: Sequence[float], tried: int | None = None) -> list[float]:
    """Holm step-down adjusted p values, in the order given; `tried` counts tests that were made but are not listed."""
    order = sorted(range(len(ps)), key=lambda i: ps[i])
    adjusted = [0.0] * len(ps)
    highest, family = 0.0, max(len(ps), tried or 0)
    for rank, i in enumerate(order):
        highest = max(highest, min(1.0, ps[i] * (family - rank)))
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


def mcnemar_power(n: int, diff: float, flip_share: float, alpha: float = 0.05) -> float:
    """The exact test's chance to see a true paired difference `diff` (a share) when `flip_share` of n rows change.

    Exact: sums over the number of rows that change, which is binomial, and over their direction.
    """
    from scipy.stats import binom

    if n <= 0 or not 0 < flip_share <= 1 or abs(diff) > flip_share:
        return math.nan
    towards = (1 + abs(diff) / flip_share) / 2
    spread = 6 * math.sqrt(n * flip_share * (1 - flip_share)) + 1
    flips = np.arange(max(0, int(n * flip_share - spread)), min(n, int(n * flip_share + spread)) + 1)
    # The largest k with 2 * P(X <= k) <= alpha; -1 where even 0 is not rare enough.
    edge = binom.ppf(alpha / 2, flips, 0.5)
    edge = np.where(2 * binom.cdf(edge, flips, 0.5) <= alpha, edge, edge - 1)
    found = binom.cdf(edge, flips, towards) + binom.cdf(edge, flips, 1 - towards)
    return float((binom.pmf(flips, n, flip_share) * np.where(edge >= 0, found, 0.0)).sum())


def rows_needed(diff: float, flip_share: float, power: float = _POWER, alpha: float = 0.05) -> int:
    """Rows that show a true paired difference `diff` with `power`, by the exact test, when `flip_share` of rows change.

    From the normal approximation upward: power of an exact test saws, so the first n from which the next steps of 1 %
    hold as well is taken.
    """
    if not 0 < abs(diff) <= flip_share <= 1:
        return 0
    z = _quantile(1 - alpha / 2) * math.sqrt(flip_share) + _quantile(power) * math.sqrt(flip_share - diff**2)
    n = max(2, int(z**2 / diff**2 * 0.9))
    step = max(1, n // 100)
    while any(mcnemar_power(n + step * k, diff, flip_share, alpha) < power for k in range(3)):
        n += step
    return n


def rows_needed_unpaired(diff: float, share: float = 0.5, power: float = _POWER, alpha: float = 0.05) -> int:
    """Rows for each of two runs on *different* rows, where only the normal test of two shares is left."""
    if diff == 0:
        return 0
    z = _quantile(1 - alpha / 2) + _quantile(power)
    return math.ceil(2 * share * (1 - share) * (z / diff) ** 2)


def sources_needed(tests: int, alpha: float = 0.05) -> int:
    """The fewest clusters whose sign flips can reach `alpha` over so many tests: k of them give p 2^(1 - k) at best."""
    return math.ceil(math.log2(2 * max(1, tests) / alpha))


def seed_spread(by_seed: Sequence[Sequence[float]]) -> dict[str, float]:
    """Rows scored under several shot seeds: [seeds, rows] -> what sampling of rows and what the choice of seed adds.

    mean; sampling_error: standard error over rows of the row means; seed_sd: standard deviation of the seeds' means as
    seen; seed_effect: the part of it that the rows' own wavering does not explain (two-way random effects, 0 where it
    explains all).
    """
    x = np.asarray(by_seed, dtype=np.float64)
    seeds, rows = x.shape
    if seeds < 2 or rows < 2:
        return {"mean": float(x.mean()), "sampling_error": math.nan, "seed_sd": math.nan, "seed_effect": math.nan}
    means = x.mean(axis=1)
    rest = x - x.mean(axis=0, keepdims=True) - means[:, None] + x.mean()
    noise = float((rest**2).sum()) / ((seeds - 1) * (rows - 1))
    seen = float(means.var(ddof=1))
    return {
        "mean": float(x.mean()),
        "sampling_error": float(x.mean(axis=0).std(ddof=1) / math.sqrt(rows)),
        "seed_sd": math.sqrt(seen),
        "seed_effect": math.sqrt(max(0.0, seen - noise / rows)),
    }
