"""Rows and scores as they stand on disk."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tuneloop import metrics, stats
from tuneloop.errors import UsageError
from tuneloop.scoring import OptionScore
from tuneloop.store import sha256_text, write_json, write_table

Row = dict[str, Any]
TEXT = ("task", "row", "group", "prompt_hash", "question", "category", "text_pred", "text_gold")
WHOLE = ("gold", "pred", "pred_norm")
COUNTS = ("prompt_tokens", "answer_tokens")  # of one answer; null where they are not known
REAL = ("correct", "correct_norm", "margin", "p_gold")
QUICK_ROWS = 200  # a task; docs/evaluation.md says what that many can show


@dataclass
class Part:
    """What one task leaves: its scores, its rows, and the prompts by hash."""

    scores: list[dict[str, Any]] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    prompts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def prompt(self, text: str) -> str:
        """Keeps a prompt and returns its hash."""
        key = sha256_text(text)[:16]
        self.prompts[key] = text
        return key


def blank(task: str, row: str, **known: Any) -> Row:
    """A row in which everything unknown is empty."""
    empty: Row = dict.fromkeys(TEXT, "") | dict.fromkeys(WHOLE, -1) | dict.fromkeys(REAL + COUNTS)
    lists: Row = {"logprobs": [], "probabilities": [], "lengths": [], "tokens": [], "options": []}
    lists |= {"golds": [], "greedy": [], "flags": [], "samples": []}
    return {
        **empty, **lists, "text_pred": None, "text_gold": None, "truncated": False, "tie": False,
        "task": task, "row": row, **known,
    }  # fmt: skip


def choice_row(task: str, row: str, scores: Sequence[OptionScore], options: list[str], gold: list[int]) -> Row:
    """The row of a choice among options: predictions, margin, probability of the right ones, ties."""
    sums = [s.logprob for s in scores]
    normed = metrics.by_characters(sums, options)
    pred, gap = metrics.best(sums), metrics.margin(sums, gold)
    return blank(
        task, row,
        gold=gold[0], golds=list(gold), pred=pred, pred_norm=metrics.best(normed), correct=float(pred in gold),
        correct_norm=float(metrics.best(normed) in gold), logprobs=sums, probabilities=metrics.shares(sums),
        lengths=[len(o) for o in options],
        tokens=[s.n_tokens for s in scores], greedy=[s.greedy for s in scores],
        margin=gap if math.isfinite(gap) else None,
        p_gold=metrics.true_mass(sums, gold), truncated=any(s.truncated for s in scores),
        tie=metrics.tied(sums), options=options, prompt_tokens=scores[0].prompt_tokens,
        answer_tokens=scores[pred].n_tokens,
        flags=["boundary mismatch"] if any(s.mismatch for s in scores) else [],
    )  # fmt: skip


def share_score(
    task: str, metric: str, values: Sequence[float], groups: Sequence[str] | None = None, **more: Any
) -> dict[str, Any]:
    """A score with its interval: Wilson for 0/1 values, Student's t for means.

    Where `groups` (the rows' sources) repeat, the error is clustered; Wilson then counts n / design effect rows.
    """
    mean, error, low, high = stats.mean_interval(values)
    effect = 1.0
    if groups and all(groups) and 1 < len(set(groups)) < len(values):
        _, clustered, low, high = stats.clustered_interval(values, groups)
        effect = max(1.0, (clustered / error) ** 2) if error else 1.0
        error = max(error, clustered)
    if values and all(v in (0.0, 1.0) for v in values):
        low, high = stats.wilson(sum(values) / effect, len(values) / effect)
    elif values and all(0.0 <= v <= 1.0 for v in values):
        low, high = np.clip([low, high], 0.0, 1.0).tolist()  # Student's interval of few shares may reach past them
    if effect > 1.05:
        note = f"clustered by source, design effect {effect:.2f}"
        more["note"] = f"{more['note']}; {note}" if more.get("note") else note
    return score(task, metric, mean, n=len(values), interval=(error, low, high), **more)


def score(
    task: str, metric: str, value: float, *, n: int, interval: tuple[float, float, float], **more: Any
) -> dict[str, Any]:
    """One entry of scores.json. What cannot be computed is null."""
    error, low, high = interval
    known = {"version": "1", "shots": 0, "chance": None, "baselines": {}, "note": ""}
    found = {"task": task, "metric": metric, "n": n, "value": value, "stderr": error, "low": low, "high": high}
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in (known | found | more).items()}


def write_part(folder: Path, parts: list[Part], head: dict[str, Any]) -> None:
    """Writes scores.json, rows.parquet and prompts.parquet."""
    import pyarrow as pa

    kinds = {
        **{name: pa.string() for name in TEXT},
        **{name: pa.int64() for name in WHOLE},
        **{name: pa.int64() for name in COUNTS},
        **{name: pa.float64() for name in REAL},
        "logprobs": pa.list_(pa.float64()),
        "probabilities": pa.list_(pa.float64()),
        "lengths": pa.list_(pa.int64()),
        "tokens": pa.list_(pa.int64()),
        "golds": pa.list_(pa.int64()),
        "greedy": pa.list_(pa.bool_()),
        "truncated": pa.bool_(),
        "tie": pa.bool_(),
        "options": pa.list_(pa.string()),
        "flags": pa.list_(pa.string()),
        "samples": pa.list_(pa.string()),
    }
    rows = [row for part in parts for row in part.rows]
    _check_once(rows)
    extra = dict.fromkeys(name for row in rows for name in row if name not in kinds)
    kinds |= {name: pa.float64() if name.startswith("score_") else pa.string() for name in extra}
    write_table(folder / "rows.parquet", pa.Table.from_pylist(rows, schema=pa.schema(list(kinds.items()))))
    prompts = {key: text for part in parts for key, text in part.prompts.items()}
    table = pa.table({"prompt_hash": list(prompts), "prompt": list(prompts.values())})
    write_table(folder / "prompts.parquet", table)
    scores = [entry for part in parts for entry in part.scores]
    warnings = [text for part in parts for text in part.warnings]
    write_json(folder / "scores.json", {**head, "scores": scores, "warnings": warnings})


def _check_once(rows: list[Row]) -> None:
    """UsageError 159 where two tasks have a row of one name, as a group of lm-eval and a task in it have."""
    twice = next((key for key, n in Counter((r["task"], r["row"]) for r in rows).items() if n > 1), None)
    if twice:
        raise UsageError(
            159, f"'{twice[0]}' is scored twice, by itself and in a group", where="eval.tasks",
            expected="a name for each", cure="leave one out, or give the group another `name`",
        )  # fmt: skip
