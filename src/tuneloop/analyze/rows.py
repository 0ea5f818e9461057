"""Reads scored rows and joins two contenders row by row; refuses to compare different rows."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.errors import DataError, UsageError
from tuneloop.store import read_json, read_table

Row = dict[str, Any]


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


def value(row: Row, column: str = "correct") -> float:
    """The number in `column`; a missing one is NaN."""
    found = row.get(column)
    return math.nan if found is None else float(found)


def right(row: Row) -> bool:
    """Right for 0/1 scores; for mc2, more than half of the mass on true options."""
    return value(row) >= 0.5


def read_scores(folder: Path) -> tuple[dict[str, Any], list[Row]]:
    """`scores.json` and the rows of a scores folder, or a coded error."""
    if not (folder / "scores.json").is_file() or not (folder / "rows.parquet").is_file():
        raise UsageError(
            115,
            "not a scores folder",
            where=str(folder),
            expected="scores.json and rows.parquet",
            cure="give a folder that `tuneloop eval` wrote",
        )
    return read_json(folder / "scores.json"), read_table(folder / "rows.parquet").to_pylist()


def _keyed(rows: list[Row], where: Path) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        task, key = str(row["task"]), str(row["row"])
        if key in found[task]:
            raise DataError(391, f"row '{key}' of task '{task}' stands twice", where=str(where / "rows.parquet"))
        if math.isnan(value(row)):
            raise DataError(
                392,
                f"row '{key}' of task '{task}' has no finite score",
                where=str(where / "rows.parquet"),
                expected="a number in column 'correct'",
                cure="score again; a NaN means the model's outputs overflowed (try dtype float32)",
            )
        found[task][key] = row
    return found


def join(scores: Path, against: Path | None) -> list[TaskRows]:
    """The rows of `scores`, task by task, paired with the same rows of `against`."""
    listed, rows = read_scores(scores)
    after = _keyed(rows, scores)
    if not after:
        raise DataError(393, "no scored rows", where=str(scores / "rows.parquet"), cure="score at least one row")
    before = _keyed(read_scores(against)[1], against) if against else {}
    if against and set(before) != set(after):
        odd = sorted(set(before) ^ set(after))
        raise _different(f"task '{odd[0]}' was scored on one side only", scores, against)
    joined = []
    for task, keyed in after.items():
        other = before.get(task, {})
        if against and set(other) != set(keyed):
            odd = sorted(set(other) ^ set(keyed))
            raise _different(f"{len(odd)} rows of task '{task}' differ, first '{odd[0]}'", scores, against)
        for key, row in keyed.items():
            if against and row.get("gold") != other[key].get("gold"):
                raise _different(f"row '{key}' of task '{task}' has another gold answer", scores, against)
        entries = [entry for entry in listed.get("scores", []) if entry.get("task") == task]
        joined.append(TaskRows(task, list(keyed.values()), [other[k] for k in keyed] if against else [], entries))
    return joined


def _different(what: str, scores: Path, against: Path) -> DataError:
    return DataError(
        390,
        f"the two score folders do not hold the same rows: {what}",
        where=f"{scores} against {against}",
        expected="the same tasks, limits and data on both sides",
        cure="score both with one `tuneloop compare`",
    )
