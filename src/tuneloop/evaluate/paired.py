"""Contenders against each other on the same rows: paired tests, corrected for everything that was tried."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop import stats
from tuneloop.scored import Keyed, Row, check_rows, read_scores, same_measure, value

Entry = dict[str, Any]


@dataclass
class Scored:
    """A scores folder in memory: its score entries and its rows by task."""

    name: str
    path: Path
    scores: list[Entry]
    rows: Keyed

    def heads(self) -> list[Entry]:
        """The first score of each task, in order."""
        seen: dict[str, Entry] = {}
        for entry in self.scores:
            seen.setdefault(str(entry["task"]), entry)
        return list(seen.values())


def read(name: str, path: Path) -> Scored:
    listed, rows = read_scores(path)
    found: Keyed = {}
    for row in rows:
        found.setdefault(str(row["task"]), {})[str(row["row"])] = row
    return Scored(name, path, listed["scores"], found)


def headline_tasks(base: Scored) -> list[str]:
    """What verdicts are about: every benchmark, and the first task of the test split; the rest is secondary."""
    names = [str(entry["task"]) for entry in base.heads()]
    own = [n for n in names if n.startswith("test:")]
    return [n for n in names if n not in own[1:]]


def primary_task(base: Scored) -> str:
    """The task that ranks: of the user's own rows where there are any, else the first benchmark."""
    names = headline_tasks(base)
    return next((n for n in names if n.startswith("test:")), names[0])


def pair(one: Scored, against: Scored, task: str, seed: int = 0) -> Entry:
    """The paired comparison of `one` with `against` on a task that both scored. DataError 390 for other rows, another
    metric or another version of the task.

    Rows that a judge could not be read on, on either side, are left out of the pairs and counted.
    """
    after, before = one.rows[task], against.rows[task]
    check_rows(task, after, before, one.path, against.path)
    keys = [k for k in after if not (math.isnan(value(after[k])) or math.isnan(value(before[k])))]
    entry: Entry = {"contender": one.name, "against": against.name, "task": task, "left_out": len(after) - len(keys)}
    metric = same_measure(task, one.scores, against.scores, one.path, against.path)
    if not keys:
        return entry | {"metric": metric, "n": 0, "p": 1.0, "diff": 0.0, "before": None, "after": None}
    groups = _groups([after[k] for k in keys])
    return entry | {
        "metric": metric,
        **stats.paired([value(before[k]) for k in keys], [value(after[k]) for k in keys], groups, seed),
    }


def by_category(one: Scored, against: Scored, task: str, alpha: float, smallest: int = 10) -> list[Entry]:
    """The categories of a task (MMLU's 57 subjects, say) that changed, Benjamini-Hochberg over all that were tested."""
    after, before = one.rows[task], against.rows[task]
    keys: dict[str, list[str]] = {}
    for key, row in after.items():
        keys.setdefault(str(row.get("category") or ""), []).append(key)
    tested = [(name, own) for name, own in keys.items() if name and len(own) >= smallest]
    if len(tested) < 2:
        return []
    found = []
    for name, own in tested:
        known = [k for k in own if not (math.isnan(value(after[k])) or math.isnan(value(before[k])))]
        if known:
            clusters = _groups([after[k] for k in known])
            test = stats.paired([value(before[k]) for k in known], [value(after[k]) for k in known], clusters)
            found.append({"task": task, "category": name, **test})
    adjusted = stats.benjamini_hochberg([t["p"] for t in found])
    judged = [t | {"p_adjusted": p, "of": len(found)} for t, p in zip(found, adjusted, strict=True)]
    return sorted((t for t in judged if t["p_adjusted"] <= alpha), key=lambda t: t["p_adjusted"])


def _groups(rows: list[Row]) -> list[str] | None:
    """The rows' sources, where every row names one."""
    groups = [str(r.get("group") or "") for r in rows]
    return groups if all(groups) else None


def correct(tests: list[Entry], alpha: float, untold: int = 0) -> list[Entry]:
    """Adds p_adjusted (Holm over all of them and over `untold` tests made before) and the verdict."""
    adjusted = stats.holm([t["p"] for t in tests], tried=len(tests) + untold)
    return [
        t | {"p_adjusted": p, "verdict": stats.verdict(p, t["diff"], alpha)}
        for t, p in zip(tests, adjusted, strict=True)
    ]
