"""Paired tests and the verdict, which follows the corrected test alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tuneloop.analyze.rows import TaskRows, value
from tuneloop.stats import holm, paired, verdict, wilson

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
        entry["verdict"] = verdict(entry["p_adjusted"], entry["diff"], alpha)
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
    before = [value(row, column) for row in task.before]
    after = [value(row, column) for row in task.after]
    groups = [str(row.get("group") or "") for row in task.after]
    entry: dict[str, Any] = {"task": task.task, "metric": metric}
    entry |= paired(before, after, groups if all(groups) else None, seed)
    entry["unit"] = "points" if task.graded else "nats"
    return entry | _chance(task, metric, np.array(after), entry["b"] is not None)


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
