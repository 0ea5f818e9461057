"""Paired tests and the verdict, which follows the corrected test alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tuneloop.analyze.rows import TaskRows, value
from tuneloop.stats import detectable_difference, detectable_paired, holm, mcnemar_exact, paired_bootstrap, wilson

Z = 1.959963984540054


def verdicts(tasks: list[TaskRows], alpha: float, seed: int) -> list[dict[str, Any]]:
    """One entry a task and metric; Holm over the headline metrics (the first of each task), the rest over all.

    `before`, `after`, `diff`, `low`, `high`, `detectable` are shares (multiply by 100 for points), or nats for a mean
    log-probability.
    """
    found = []
    for task in tasks:
        for place, (metric, column) in enumerate(_metrics(task)):
            entry = _compare(task, metric, column, seed)
            entry["headline"] = place == 0
            found.append(entry)
    everything = holm([entry["p"] for entry in found])
    heads = [entry for entry in found if entry["headline"]]
    for entry, p in zip(found, everything, strict=True):
        entry["p_adjusted"] = p
    for entry, p in zip(heads, holm([entry["p"] for entry in heads]), strict=True):
        entry["p_adjusted"] = p
    for entry in found:
        entry["verdict"] = _verdict(entry, alpha)
    return found


def _metrics(task: TaskRows) -> list[tuple[str, str]]:
    """(metric name, column) in the order of scores.json, each column once."""
    names = [str(entry.get("metric")) for entry in task.scores]
    found: dict[str, str] = {}
    for name in names:
        column = "correct_norm" if name.endswith("_norm") else "correct"
        found.setdefault(column, name)
    found.setdefault("correct", "acc")
    rows = task.after + task.before
    return [(n, c) for c, n in found.items() if not any(math.isnan(value(row, c)) for row in rows)]


def _compare(task: TaskRows, metric: str, column: str, seed: int) -> dict[str, Any]:
    before = np.array([value(row, column) for row in task.before])
    after = np.array([value(row, column) for row in task.after])
    n = len(after)
    diffs = after - before
    binary = bool(np.isin(np.concatenate([before, after]), (0.0, 1.0)).all())
    entry: dict[str, Any] = {"task": task.task, "metric": metric, "n": n, "test": "", "b": None, "c": None}
    if binary:
        b, c = int((diffs < 0).sum()), int((diffs > 0).sum())
        low, high = _difference_interval(b, c, n)
        # Planning wants some share of flips even where none was seen.
        sure = detectable_difference(n, max(b + c, 1) / n)
        entry |= {"test": "exact McNemar", "b": b, "c": c, "p": mcnemar_exact(b, c)}
    else:
        low, high, p = paired_bootstrap(diffs.tolist(), seed)
        sure = detectable_paired(float(diffs.std(ddof=1)) if n > 1 else math.inf, n)
        entry |= {"test": "paired permutation", "p": p}
    entry |= {"before": float(before.mean()), "after": float(after.mean()), "diff": float(diffs.mean())}
    entry |= {"low": low, "high": high, "detectable": sure if math.isfinite(sure) else None}
    entry["unit"] = "points" if task.graded else "nats"
    return entry | _chance(task, metric, after, binary)


def _difference_interval(b: int, c: int, n: int) -> tuple[float, float]:
    """95 % interval of the paired difference (c - b) / n. Source: Bonett and Price 2012 (adjusted Wald)."""
    worse, better = (b + 1) / (n + 2), (c + 1) / (n + 2)
    half = Z * math.sqrt(max(worse + better - (better - worse) ** 2, 0.0) / (n + 2))
    return max(-1.0, better - worse - half), min(1.0, better - worse + half)


def _chance(task: TaskRows, metric: str, after: Any, binary: bool) -> dict[str, Any]:
    """Whether the tune stands at chance: its interval holds the chance level."""
    scored = next((entry for entry in task.scores if entry.get("metric") == metric), {})
    chance = scored.get("chance")
    if chance is None or not task.graded:
        return {"chance": chance, "at_chance": False}
    n = len(after)
    if binary:
        low, high = wilson(float(after.sum()), n)
    else:
        half = Z * float(after.std(ddof=1)) / math.sqrt(n) if n > 1 else 1.0
        low, high = float(after.mean()) - half, float(after.mean()) + half
    return {"chance": float(chance), "at_chance": bool(low <= float(chance) <= high)}


def _verdict(entry: dict[str, Any], alpha: float) -> str:
    if entry["p_adjusted"] > alpha or entry["diff"] == 0:
        return "no detectable difference"
    return "better" if entry["diff"] > 0 else "worse"
