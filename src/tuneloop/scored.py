"""Scored rows as the stages read them: by task and key, finite, and the same rows on both sides of a comparison."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from tuneloop.errors import DataError, UsageError
from tuneloop.store import read_json, read_table

Row = dict[str, Any]
Keyed = dict[str, dict[str, Row]]  # task -> key -> row


def value(row: Row, column: str = "correct") -> float:
    """The number in `column`; a missing one is NaN."""
    found = row.get(column)
    return math.nan if found is None else float(found)


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


def keyed(rows: list[Row], where: Path) -> Keyed:
    """Rows by task and key. DataError 391 for a key that stands twice, 392 for a row without a finite score."""
    found: Keyed = defaultdict(dict)
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


def check_same(after: Keyed, before: Keyed, scores: Path, against: Path) -> None:
    """DataError 390 unless both sides hold the same tasks, rows and gold answers."""
    if set(before) != set(after):
        odd = sorted(set(before) ^ set(after))
        raise different(f"task '{odd[0]}' was scored on one side only", scores, against)
    for task, rows in after.items():
        check_rows(task, rows, before[task], scores, against)


def check_rows(task: str, after: dict[str, Row], before: dict[str, Row], scores: Path, against: Path) -> None:
    """DataError 390 unless one task's rows are the same, with the same gold answers."""
    if set(before) != set(after):
        odd = sorted(set(before) ^ set(after))
        raise different(f"{len(odd)} rows of task '{task}' differ, first '{odd[0]}'", scores, against)
    for key, row in after.items():
        for column in ("gold", "text_gold"):
            if row.get(column) != before[key].get(column):
                raise different(f"row '{key}' of task '{task}' has another gold answer", scores, against)


def same_measure(task: str, after: list[Row], before: list[Row], scores: Path, against: Path) -> str:
    """The headline metric of a task, which the scores of both sides must have in one version (else DataError 390)."""
    mine, theirs = (next((s for s in side if s.get("task") == task), {}) for side in (after, before))
    for name in ("metric", "version"):
        if mine.get(name) != theirs.get(name):
            what = f"task '{task}' has {name} {mine.get(name)} on one side and {theirs.get(name)} on the other"
            raise different(what, scores, against)
    return str(mine.get("metric", ""))


def different(what: str, scores: Path, against: Path) -> DataError:
    return DataError(
        390,
        f"the two score folders cannot be compared: {what}",
        where=f"{scores} against {against}",
        expected="the same tasks, rows, metrics and versions on both sides",
        cure="score both with one `tuneloop compare`",
    )
