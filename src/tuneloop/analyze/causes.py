"""Why a row is wrong, from the scores of its options alone: no further forward pass.

A row takes several tags; `primary` is the first of `PRECEDENCE` it has. Faults of the run come first because they
excuse the model, then what tuning changed, then artefacts of format, then what the option scores say.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tuneloop.analyze import freetext
from tuneloop.analyze.rows import Row, TaskRows, right
from tuneloop.stats import wilson

PRECEDENCE = (
    # the run
    "truncated prompt",
    "tie",
    "boundary mismatch",
    # the benchmark
    "label suspect",
    "contaminated",
    # the tuning
    "forgetting",
    # the form
    "empty answer",
    "repetition loop",
    "ran to the token limit",
    "goes on with a new question",
    "refusal",
    "language switch",
    "answer present, not extracted",
    "wrong format",
    "format failure",
    "length bias",
    "position bias",
    "prior-driven",
    # what the scores say
    "near miss",
    "repeats a false reference",
    "knowledge gap",
    "confident wrong",
    "never near",
    "unstable",
    "other",
    "learned",
)
NOISE = 0.02  # nats: batch size and number format move a margin by less than this
MOST_POSITIONS = 10
BIAS_P = 0.001


@dataclass(slots=True)
class Tagged:
    """A row with its causes; `change` is 'forgotten', 'learned', 'still right', 'still wrong' or ''."""

    task: str
    row: Row
    before: Row | None
    causes: list[str]
    change: str = ""
    slices: list[str] = field(default_factory=list)
    explained: bool = False  # a finding about data, benchmark or prompts already accounts for it

    @property
    def wrong(self) -> bool:
        return not right(self.row)

    @property
    def primary(self) -> str:
        return next((name for name in PRECEDENCE if name in self.causes), "")


def probabilities(row: Row) -> list[float]:
    """Softmax over the options' summed log-probabilities; empty without two finite options."""
    logs = [float(x) for x in row.get("logprobs") or [] if x is not None]
    if len(logs) < 2 or not all(math.isfinite(x) for x in logs):
        return []
    top = max(logs)
    weights = [math.exp(x - top) for x in logs]
    return [w / sum(weights) for w in weights]


def tag(tasks: list[TaskRows], near_miss: float, confident: float) -> list[Tagged]:
    """Every graded row of every task with its causes."""
    answered = {(t.task, str(r["row"])) for t in tasks if t.graded for r in t.after if right(r)}
    found = []
    for task in tasks:
        if not task.graded:
            continue
        biased = overpicked(task.after)
        for place, row in enumerate(task.after):
            before = task.before[place] if task.before else None
            item = Tagged(task.task, row, before, [], _change(row, before))
            item.causes = _faults(row) if item.wrong else []
            if item.wrong:
                item.causes += freetext.of_row(row)
                item.causes += _format(task.task, row, answered)
                item.causes += _options(row, near_miss, confident)
                if biased is not None and row.get("pred") == biased:
                    item.causes.append("position bias")
            if item.change == "forgotten":
                item.causes.append("forgetting")
            if item.change == "learned":
                item.causes.append("learned")
            if _close(row):
                item.causes.append("unstable")
            if item.wrong and not item.causes:
                item.causes = ["other"]
            found.append(item)
    return found


def _change(row: Row, before: Row | None) -> str:
    if before is None:
        return ""
    names = {
        (True, False): "forgotten",
        (False, True): "learned",
        (True, True): "still right",
        (False, False): "still wrong",
    }
    return names[right(before), right(row)]


def _faults(row: Row) -> list[str]:
    found = [name for name, key in (("truncated prompt", "truncated"), ("tie", "tie")) if row.get(key)]
    return found + [flag for flag in row.get("flags") or [] if flag == "boundary mismatch"]


def _close(row: Row) -> bool:
    """The two best options are nearer to one another than noise: another batch size may turn the pick."""
    logs = sorted((float(x) for x in row.get("logprobs") or [] if x is not None), reverse=True)
    return len(logs) > 1 and logs[0] - logs[1] < NOISE


def _format(task: str, row: Row, answered: set[tuple[str, str]]) -> list[str]:
    """Wrong as generated text although the same row is right when the answers are scored, or nothing was said."""
    text = row.get("text_pred")
    if text is None:
        return []
    scored = ("test:accuracy", str(row["row"])) in answered and task != "test:accuracy"
    gold = str(row.get("text_gold") or "").strip().lower()
    hidden = bool(gold) and gold in str(text).lower()
    return ["format failure"] if scored or hidden or not str(text).strip() else []


def _options(row: Row, near_miss: float, confident: float) -> list[str]:
    found = []
    normalised = row.get("correct_norm")
    if normalised is not None and float(normalised) >= 0.5:
        found.append("length bias")
    p, gold, pred = probabilities(row), row.get("gold"), row.get("pred")
    if not p or gold is None or pred is None or not (0 <= gold < len(p) and 0 <= pred < len(p)):
        return found
    if p[pred] > confident:
        found.append("confident wrong")
    place = sum(x > p[gold] for x in p)
    if place == 1 and p[gold] > near_miss:
        found.append("near miss")
    if place == len(p) - 1 and len(p) > 2:
        found.append("never near")
    return found


def overpicked(rows: list[Row]) -> int | None:
    """The position picked far more often than it is right (chi-square of picks against gold), or None."""
    picks = Counter(row["pred"] for row in rows if row.get("pred") is not None and len(row.get("options") or []) > 1)
    golds = Counter(row["gold"] for row in rows if row.get("gold") is not None and len(row.get("options") or []) > 1)
    places = sorted(set(picks) | set(golds))
    total = sum(picks.values())
    # mc1 puts the gold first in every row: a marginal of one position says nothing.
    if total < 50 or not 2 <= len(places) <= MOST_POSITIONS or sum(golds[k] > 0 for k in places) < 2:
        return None
    from scipy.stats import chisquare

    smooth = [golds[k] + 0.5 for k in places]
    expected = [x / sum(smooth) * total for x in smooth]
    seen = [picks[k] for k in places]
    if float(chisquare(seen, expected).pvalue) >= BIAS_P:
        return None
    excess = [(s - e, k) for s, e, k in zip(seen, expected, places, strict=True)]
    return int(max(excess)[1])


def count(tagged: list[Tagged]) -> list[dict[str, Any]]:
    """Rows a task and cause, with the share of the task's rows, its interval and up to 10 row ids."""
    sizes = Counter(item.task for item in tagged)
    groups: dict[tuple[str, str], list[Tagged]] = {}
    for item in tagged:
        for cause in item.causes:
            groups.setdefault((item.task, cause), []).append(item)
    found = []
    for (task, cause), items in groups.items():
        low, high = wilson(len(items), sizes[task])
        entry = {"task": task, "cause": cause, "rows": len(items), "share": len(items) / sizes[task]}
        entry |= {"low": low, "high": high, "primary": sum(item.primary == cause for item in items)}
        found.append(entry | {"examples": [str(item.row["row"]) for item in items[:10]]})
    return sorted(found, key=lambda entry: (-entry["rows"], entry["task"], entry["cause"]))
