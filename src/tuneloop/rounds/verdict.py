"""The end of a loop: base, every round and the control arm on the half of the test that nobody has read."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tuneloop.analyze.coverage import holds
from tuneloop.analyze.rows import Row, TaskRows, join, right
from tuneloop.analyze.verdicts import verdicts
from tuneloop.stats import difference_interval, mcnemar_exact, wilson
from tuneloop.store import append_jsonl, read_jsonl


def count_reads(out: Path, key: str) -> int:
    """Notes that the reporting half is read now, unless this very verdict was; returns how often it has been read."""
    path = out / "reads.jsonl"
    lines = read_jsonl(path) if path.is_file() else []
    if key not in [line["key"] for line in lines]:
        append_jsonl(path, {"when": datetime.now(UTC).isoformat(timespec="seconds"), "key": key})
        return len(lines) + 1
    return len(lines)


def judge(folders: dict[str, Path], names: list[str], alpha: float, seed: int) -> dict[str, Any]:
    """Scores by contender and task, on the weak slice (rows under `names`) and elsewhere, and the paired comparisons.

    `folders` holds base, round-0 ... round-N and perhaps control, all scored on the reporting half.
    """
    last = [name for name in folders if name.startswith("round-")][-1]
    tables = {name: join(folder, None) for name, folder in folders.items()}
    scores = {name: [_score(task, names) for task in tasks if task.graded] for name, tasks in tables.items()}
    found: dict[str, Any] = {"contenders": scores, "last": last, "names": names, "against": {}}
    for other in ("base", "round-0", "control"):
        if other in folders and other != last:
            pairs = join(folders[last], folders[other])
            entries = [e for e in verdicts(pairs, alpha, seed) if e["headline"]]
            found["against"][other] = {"verdicts": entries, "slice": _paired(pairs, names, True)}
            found["against"][other]["elsewhere"] = _paired(pairs, names, False)
    found["by_round"] = _by_round(folders, names)
    return found


def _by_round(folders: dict[str, Path], names: list[str]) -> dict[str, dict[str, Any]]:
    """Every round against the control arm, or against the round before where there is none."""
    found: dict[str, dict[str, Any]] = {}
    rounds = [name for name in folders if name.startswith("round-")]
    for k, name in enumerate(rounds):
        other = "control" if "control" in folders else rounds[k - 1] if k else "base"
        pairs = join(folders[name], folders[other])
        found[name] = {"against": other, "slice": _paired(pairs, names, True)}
        found[name]["elsewhere"] = _paired(pairs, names, False)
    return found


def _score(task: TaskRows, names: list[str]) -> dict[str, Any]:
    inside = [right(row) for row in task.after if holds(names, row)]
    outside = [right(row) for row in task.after if not holds(names, row)]
    return {"task": task.task, "all": _share([*inside, *outside]), "slice": _share(inside), "rest": _share(outside)}


def _share(marks: list[bool]) -> dict[str, float] | None:
    if not marks:
        return None
    low, high = wilson(sum(marks), len(marks))
    return {"n": len(marks), "value": sum(marks) / len(marks), "low": low, "high": high}


def _paired(tasks: list[TaskRows], names: list[str], inside: bool) -> dict[str, Any]:
    """Rows lost and gained over all tasks, inside the weak slice or elsewhere: McNemar's exact p, 95 % interval."""
    pairs: list[tuple[Row, Row]] = [
        (before, after)
        for task in tasks
        if task.graded
        for before, after in zip(task.before, task.after, strict=True)
        if holds(names, after) == inside
    ]
    lost = sum(right(before) and not right(after) for before, after in pairs)
    gained = sum(right(after) and not right(before) for before, after in pairs)
    n = len(pairs)
    low, high = difference_interval(lost, gained, n) if n else (0.0, 0.0)
    return {
        "n": n,
        "lost": lost,
        "gained": gained,
        "diff": (gained - lost) / n if n else 0.0,
        "low": low,
        "high": high,
        "p": mcnemar_exact(lost, gained),
    }
