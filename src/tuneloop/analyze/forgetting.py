"""What tuning cost elsewhere: gain on the tasks it was for beside loss on the others, and what to change."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from tuneloop.analyze.evidence import Evidence
from tuneloop.analyze.rows import join
from tuneloop.analyze.verdicts import verdicts
from tuneloop.store import read_jsonl

LOST = 0.1  # share of a task's rows right before that may turn wrong before replay alone is not enough


def forgetting(
    seen: Evidence, model: Path | None, against: Path | None = None, kept: dict[str, Path] | None = None
) -> dict[str, Any]:
    """{tasks, advice, kept, logged}: a line a task with its change, where its losses lie, and what to change.

    `kept` holds for each checkpoint that was scored (name -> scores folder) the change of every task against the base;
    `logged` the scores that training itself noted on its way, where it did.
    """
    tasks = []
    for entry in seen.heads():
        items = [item for item in seen.tagged if item.task == entry["task"]]
        gone = [item for item in items if item.change == "forgotten"]
        held = sum(item.change in ("forgotten", "still right") for item in items)
        where = Counter(name for item in gone for name in item.slices)
        sizes = Counter(name for item in items for name in item.slices)
        # Slices that hold far more of the losses than of the rows.
        over = [n for n, k in where.items() if k >= 5 and k / len(gone) > 1.5 * sizes[n] / len(items)]
        line = {"task": entry["task"], "diff": entry["diff"], "low": entry["low"], "high": entry["high"]}
        line |= {"unit": entry["unit"], "verdict": entry["verdict"], "forgotten": len(gone), "held": held}
        line |= {"slices": sorted(over, key=lambda n: -where[n])[:5], "rows": [str(i.row["row"]) for i in gone[:20]]}
        tasks.append(line)
    return {
        "tasks": tasks,
        "advice": _advice(tasks),
        "kept": _kept(seen, against, kept or {}),
        "logged": _logged(model),
    }


def _kept(seen: Evidence, against: Path | None, kept: dict[str, Path]) -> list[dict[str, Any]]:
    """Gain and loss at each kept checkpoint; one test each, corrected over its tasks, as for the tune itself."""
    found = []
    for name, scores in kept.items() if against else ():
        heads = [e for e in verdicts(join(scores, against), seen.config.alpha, seen.config.seed) if e["headline"]]
        keys = ("task", "diff", "low", "high", "unit", "verdict", "b", "c")
        found.append({"checkpoint": name, "tasks": [{key: entry[key] for key in keys} for entry in heads]})
    return found


def _advice(tasks: list[dict[str, Any]]) -> str:
    worse = [t for t in tasks if t["verdict"] == "worse"]
    if not worse:
        return "No task got worse beyond what chance explains: nothing to change."
    share = max(t["forgotten"] / t["held"] if t["held"] else 0.0 for t in worse)
    names = ", ".join(t["task"] for t in worse)
    gained = [t["task"] for t in tasks if t["verdict"] == "better"]
    first = f"Worse on {names}" + (f", better on {', '.join(gained)}. " if gained else ", better on nothing. ")
    if share > LOST:
        return first + (
            f"{100 * share:.0f} % of what was known there is gone: replay rows of that kind (a tenth to a fifth of the "
            "training rows) and halve train.learning_rate, or train an adapter of lower rank."
        )
    return first + "The loss is small: replay rows of that kind first (a tenth of the training rows)."


def _logged(model: Path | None) -> list[dict[str, Any]]:
    """Step and scores of every evaluation that training logged: `valid_loss` and in-loop task scores."""
    path = model / "log.jsonl" if model else None
    if path is None or not path.is_file():
        return []
    found = []
    for line in read_jsonl(path):
        scores = line.get("scores") if isinstance(line, dict) else None
        if isinstance(line, dict) and ("valid_loss" in line or scores):
            found.append({"step": line.get("step"), "valid_loss": line.get("valid_loss"), "scores": scores or {}})
    return found[-50:]
