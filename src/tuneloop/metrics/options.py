"""From option scores to numbers: accuracy, accuracy by characters, mc2, ties, chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

TIE = 1e-4  # closer than this, float noise decides


def best(values: Sequence[float]) -> int:
    """Index of the largest value; a tie goes to the lowest index, as numpy's argmax and lm-eval have it."""
    return int(np.argmax(np.asarray(values, dtype=np.float64)))


def by_characters(logprobs: Sequence[float], options: Sequence[str]) -> list[float]:
    """Each sum divided by the characters of its option, as lm-eval's acc_norm."""
    return [value / max(1, len(option)) for value, option in zip(logprobs, options, strict=True)]


def shares(logprobs: Sequence[float]) -> list[float]:
    """Probabilities over the options, by log-sum-exp, so that nothing underflows to 0/0."""
    x = np.asarray(logprobs, dtype=np.float64)
    weights = np.exp(x - x.max())
    return [float(v) for v in weights / weights.sum()]


def true_mass(logprobs: Sequence[float], gold: Sequence[int]) -> float:
    """mc2: the share of probability on the true options."""
    found = shares(logprobs)
    return min(1.0, math.fsum(found[i] for i in gold))


def margin(logprobs: Sequence[float], gold: Sequence[int]) -> float:
    """Best true option minus best false one, in nats; infinite when all options are true or all false."""
    true = [v for i, v in enumerate(logprobs) if i in gold]
    false = [v for i, v in enumerate(logprobs) if i not in gold]
    return max(true) - max(false) if true and false else math.inf


def tied(values: Sequence[float]) -> bool:
    """True when the two best values are within float noise of each other."""
    top = sorted(values, reverse=True)[:2]
    return len(top) == 2 and top[0] - top[1] < TIE


def chance(options: Sequence[int], gold: Sequence[int]) -> float:
    """Expected score of a guesser: the mean over rows of true options / options."""
    return float(np.mean([g / n for g, n in zip(gold, options, strict=True)])) if options else math.nan


def trivial(options: Sequence[Sequence[str]], gold: Sequence[Sequence[int]]) -> dict[str, float]:
    """Scores of answering without reading: the best fixed position, always the longest, always the shortest option."""
    n = len(options)
    if not n:
        return {}
    widest = max(map(len, options))
    fixed = [sum(p in g for g in gold) / n for p in range(widest)]
    top = int(np.argmax(fixed))
    longest = sum(best([len(o) for o in row]) in g for row, g in zip(options, gold, strict=True)) / n
    shortest = sum(best([-len(o) for o in row]) in g for row, g in zip(options, gold, strict=True)) / n
    return {f"always option {top + 1}": fixed[top], "always the longest": longest, "always the shortest": shortest}


def macro_f1(gold: Sequence[int], pred: Sequence[int]) -> float:
    """Unweighted mean over the classes that occur of the harmonic mean of precision and recall."""
    scores = []
    for label in set(gold):
        hit = sum(g == p == label for g, p in zip(gold, pred, strict=True))
        asked = sum(g == label for g in gold) + sum(p == label for p in pred)
        scores.append(2 * hit / asked if asked else 0.0)
    return float(np.mean(scores)) if scores else math.nan
