"""What the detectors look at, gathered once; and what they give back: findings."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.rows import TaskRows
from tuneloop.analyze.training import Shown
from tuneloop.config import AnalyzeConfig
from tuneloop.store import read_table

Finding = dict[str, Any]
GATHERED = 0.6  # share of some rows that lie in one slice from which the slice explains them


@dataclass(slots=True)
class Evidence:
    """Scored rows, the training rows behind the tune (empty without a data folder), and what was computed from both."""

    config: AnalyzeConfig
    tasks: list[TaskRows]
    tagged: list[Tagged]
    verdicts: list[dict[str, Any]]
    slices: list[dict[str, Any]]
    train: list[Shown]
    prompts: dict[str, list[str]]  # task -> prompts in the order of its rows
    used: set[int] = field(default_factory=set)  # places of training rows that a finding already explains

    def by_task(self) -> dict[str, list[Tagged]]:
        found: dict[str, list[Tagged]] = defaultdict(list)
        for item in self.tagged:
            found[item.task].append(item)
        return found

    def in_a_slice(self, task: str, items: list[Tagged]) -> bool:
        """Whether most of these rows lie in one confirmed slice that holds a minority of the task's rows."""
        own, total = set(ids(items)), len(self.by_task()[task])
        slices = [set(e["rows"]) for e in self.slices if e["task"] == task and e["confirmed"]]
        return any(len(own & rows) > GATHERED * len(own) and len(rows) < total / 2 for rows in slices)

    def at_chance(self) -> set[str]:
        """Tasks whose score cannot be told from chance: single rows of them say nothing."""
        found = {entry["task"] for entry in self.heads() if entry["at_chance"]}
        for task in self.tasks if not self.verdicts else []:
            first = next((e for e in task.scores if e.get("chance") is not None and e.get("low") is not None), None)
            if first and float(first["low"]) <= float(first["chance"]) <= float(first["high"]):
                found.add(task.task)
        return found

    def heads(self) -> list[dict[str, Any]]:
        return [entry for entry in self.verdicts if entry["headline"]]


def read_prompts(scores: Path, tasks: list[TaskRows]) -> dict[str, list[str]]:
    """The prompts of each task; a scores folder without them leaves the questions."""
    path = scores / "prompts.parquet"
    known: dict[str, str] = {}
    if path.is_file():
        known = {str(r["prompt_hash"]): str(r["prompt"]) for r in read_table(path).to_pylist()}
    return {
        task.task: [known.get(str(row.get("prompt_hash")), str(row.get("question") or "")) for row in task.after]
        for task in tasks
    }


def finding(
    cause: str, tier: float, share: float, *, what: str, sure: str, rows: list[str], why: str, do: str, **more: Any
) -> Finding:
    """One finding. `tier` orders kinds of evidence (4 seen directly, 1 a rule of thumb), `share` those of one tier.

    `of` says whether `rows` are ids of test rows or file:line of training rows; `n` counts all of them.
    """
    known = {"cause": cause, "weight": round(tier + min(1.0, max(0.0, share)), 4), "of": "test", "n": len(rows)}
    return {"what": what, "how_sure": sure, "rows": rows, "why": why, "do": do} | known | more


def ids(items: list[Tagged]) -> list[str]:
    return [str(item.row["row"]) for item in items]


def percent(x: float) -> str:
    return f"{100 * x:.0f} %" if x == 0 or x >= 0.1 else f"{100 * x:.1f} %"
