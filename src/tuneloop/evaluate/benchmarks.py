"""Scores a benchmark: every option's log-likelihood, then the task's metric."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuneloop import metrics
from tuneloop.config import EvalConfig, TaskSpec
from tuneloop.console import say, warn
from tuneloop.errors import TuneloopError
from tuneloop.evaluate.rows import Part, Row, choice_row, score, share_score
from tuneloop.scoring import Scorer, pair_tokens
from tuneloop.tasks import Item, Task, build_items, find


def run_task(spec: TaskSpec, config: EvalConfig, scorer: Scorer, tokenizer: Any, few_shot: int) -> Part:
    """Rows and scores of one benchmark."""
    task, name = find(spec.task), spec.name or spec.task
    part = Part()
    shots, items = _items(task, spec, config, few_shot, part)
    requests = [(item.prompt, [" " + option for option in item.options]) for item in items]
    scored = scorer.score(pair_tokens(tokenizer, requests), name)
    for number, (item, options) in enumerate(zip(items, scored, strict=True)):
        row = choice_row(name, f"{number:05d}-{item.id}"[:60], options, item.options, item.gold)
        row |= {"question": item.question, "category": item.category, "group": item.group}
        row |= {"prompt_hash": part.prompt(item.prompt)}
        if item.texts:
            row["options"] = [f"{letter}. {text}" for letter, text in zip(item.options, item.texts, strict=True)]
        if task.metric == "mc2":
            row |= {"correct": row["p_gold"], "correct_norm": None}
        elif not task.normalised:
            row["correct_norm"] = None
        part.rows.append(row)
    part.scores = _scores(task, name, shots, items, part.rows)
    _remarks(name, part)
    return part


def _items(task: Task, spec: TaskSpec, config: EvalConfig, few_shot: int, part: Part) -> tuple[int, list[Item]]:
    limit = spec.limit or config.limit
    pinned = task.pinned or task.shots_from is None
    shots = 0 if pinned else (spec.shots if spec.shots is not None else few_shot)
    if pinned and spec.shots:
        part.warnings.append(f"{spec.task}: shots are fixed by its definition; {spec.shots} were asked for")
    try:
        return shots, build_items(task, shots=shots, data=spec.data, limit=limit)
    except TuneloopError:
        if spec.shots is not None or not shots:
            raise
        part.warnings.append(f"{spec.task}: no rows to take shots from, scored without")
        return 0, build_items(task, data=spec.data, limit=limit)


def _scores(task: Task, name: str, shots: int, items: list[Item], rows: list[Row]) -> list[dict[str, Any]]:
    counts, right = [len(i.options) for i in items], [i.gold for i in items]
    chance = metrics.chance(counts, [len(g) for g in right])
    trivial = metrics.trivial([i.texts or i.options for i in items], right)
    if task.metric == "mc2":
        trivial = {}
    known: dict[str, Any] = {"version": task.version, "shots": shots, "chance": chance, "baselines": trivial}
    first = "mc2" if task.metric == "mc2" else "acc"
    found = [share_score(name, first, [r["correct"] for r in rows], **known)]
    if task.normalised:
        found.append(share_score(name, "acc_norm", [r["correct_norm"] for r in rows], **known))
    if task.by_category:
        found.append(_macro(name, rows, known))
    return found


def _macro(name: str, rows: list[Row], known: dict[str, Any]) -> dict[str, Any]:
    """The mean over subjects, each counting the same, as the old public board had it; strata, so variances add up."""
    by: dict[str, list[float]] = {}
    for row in rows:
        by.setdefault(row["category"], []).append(row["correct"])
    means = [float(np.mean(v)) for v in by.values()]
    errors = [float(np.var(v, ddof=1)) / len(v) if len(v) > 1 else 0.25 for v in by.values()]
    value, error = float(np.mean(means)), float(np.sqrt(np.sum(errors)) / len(by))
    interval = (error, max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error))
    return score(name, "acc_macro", value, n=len(rows), interval=interval, **known)


def _remarks(name: str, part: Part) -> None:
    for what, count in (
        ("lost the beginning of their prompt to the context length", sum(r["truncated"] for r in part.rows)),
        ("are tied within 1e-4", sum(r["tie"] for r in part.rows)),
        (
            "have a token across the join of prompt and option",
            sum("boundary mismatch" in r["flags"] for r in part.rows),
        ),
    ):
        if count:
            part.warnings.append(f"{name}: {count:,} of {len(part.rows):,} rows {what}")
            warn(part.warnings[-1])
    for entry in part.scores:
        say(f"{name} {entry['metric']}: {entry['value']:.4f}  chance {entry['chance']:.4f}  n {entry['n']:,}")
