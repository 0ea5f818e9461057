"""Reads scored rows and joins two contenders row by row; refuses to compare different rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.errors import DataError
from tuneloop.scored import Keyed, Row, check_same, keyed, read_scores, same_measure, value

__all__ = ["Row", "TaskRows", "join", "read_scores", "right", "value"]


@dataclass(slots=True)
class TaskRows:
    """The rows of one task in the order of the tune's file; `before` is empty without a base."""

    task: str
    after: list[Row]
    before: list[Row] = field(default_factory=list)
    scores: list[dict[str, Any]] = field(default_factory=list)  # entries of scores.json for this task

    @property
    def graded(self) -> bool:
        """True where `correct` is a share (0/1 or probability mass), false for mean log-probabilities."""
        return all(0.0 <= value(row) <= 1.0 for row in self.after + self.before)


def right(row: Row) -> bool:
    """Right for 0/1 scores; for mc2, more than half of the mass on true options."""
    return value(row) >= 0.5


def join(scores: Path, against: Path | None) -> list[TaskRows]:
    """The rows of `scores`, task by task, paired with the same rows of `against`."""
    listed, rows = read_scores(scores)
    after = keyed(rows, scores)
    if not after:
        raise DataError(393, "no scored rows", where=str(scores / "rows.parquet"), cure="score at least one row")
    before: Keyed = {}
    if against:
        known, others = read_scores(against)
        before = keyed(others, against)
        check_same(after, before, scores, against)
        for task in after:
            same_measure(task, listed.get("scores", []), known.get("scores", []), scores, against)
    joined = []
    for task, found in after.items():
        other = before.get(task, {})
        entries = [entry for entry in listed.get("scores", []) if entry.get("task") == task]
        joined.append(TaskRows(task, list(found.values()), [other[k] for k in found] if against else [], entries))
    return joined
