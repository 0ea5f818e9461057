"""Nameable groups of rows, ranked by how many errors they hold above what their size explains."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Any

import numpy as np

from tuneloop.analyze.causes import Tagged
from tuneloop.stats import benjamini_hochberg, wilson

NEGATION = re.compile(r"\b(?:not|no|never|none|except|least|without|cannot|\w+n't)\b", re.IGNORECASE)
QUESTION_WORDS = ("what", "which", "who", "whose", "where", "when", "why", "how")
MOST_SLICES = 30


def add_slices(tagged: list[Tagged]) -> None:
    """Fills `slices` of every row with its names."""
    by_task: dict[str, list[Tagged]] = defaultdict(list)
    for item in tagged:
        by_task[item.task].append(item)
    for items in by_task.values():
        questions = [len(str(item.row.get("question") or "")) for item in items]
        options = [_option_length(item) for item in items]
        for item, question, option in zip(items, _bins(questions), _bins(options), strict=True):
            item.slices = _names(item)
            item.slices += [f"question length {question}"] if question else []
            item.slices += [f"option length {option}"] if option else []


def _option_length(item: Tagged) -> int:
    options = [str(option) for option in item.row.get("options") or []]
    return round(sum(map(len, options)) / len(options)) if options else 0


def _bins(lengths: list[int]) -> list[str]:
    """The third each length falls in, named by its range in characters; empty names when all are alike."""
    if len(set(lengths)) < 3:
        return [""] * len(lengths)
    first, second = (int(x) for x in np.quantile(lengths, [1 / 3, 2 / 3]))
    names = (f"up to {first} characters", f"{first + 1} to {second} characters", f"over {second} characters")
    return [names[int(x > first) + int(x > second)] for x in lengths]


def _names(item: Tagged) -> list[str]:
    row = item.row
    question = str(row.get("question") or "")
    words = re.findall(r"[a-z']+", question.lower())
    found = [f"category {row['category']}"] if row.get("category") else []
    found.append("with a negation" if NEGATION.search(question) else "without a negation")
    found.append("with numbers" if re.search(r"\d", question) else "without numbers")
    asked = next((word for word in words if word in QUESTION_WORDS), "")
    found.append(f"asks '{asked}'" if asked else "no question word")
    options = row.get("options") or []
    if row.get("gold") is not None and 1 < len(options) <= 10:
        found.append(f"right answer in place {int(row['gold']) + 1}")
    elif row.get("gold") is not None and len(options) > 10 and int(row["gold"]) < len(options):
        found.append(f"label {options[int(row['gold'])]}")
    return found


def worst(tagged: list[Tagged], smallest: int) -> list[dict[str, Any]]:
    """Slices with more errors than the rest of their task, by the lower bound of the excess; BH over all tried."""
    from scipy.stats import hypergeom

    groups: dict[tuple[str, str], list[Tagged]] = defaultdict(list)
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for item in tagged:
        totals[item.task][0] += 1
        totals[item.task][1] += item.wrong
        for name in item.slices:
            groups[item.task, name].append(item)
    found = []
    for (task, name), items in groups.items():
        n, (total, wrong) = len(items), totals[task]
        if not smallest <= n < total:
            continue
        errors, rate = sum(item.wrong for item in items), wrong / total
        low, high = wilson(errors, n)
        # Probability of this many errors or more in n rows drawn from the task.
        p = float(hypergeom.sf(errors - 1, total, wrong, n))
        entry: dict[str, Any] = {"task": task, "slice": name, "n": n, "errors": errors}
        entry |= {"rate": errors / n, "low": low, "high": high}
        found.append(entry | {"expected": rate, "excess": errors - n * rate, "excess_low": (low - rate) * n, "p": p})
    for entry, adjusted in zip(found, benjamini_hochberg([entry["p"] for entry in found]), strict=True):
        entry["p_adjusted"] = adjusted
    worse = [entry for entry in found if entry["excess"] > 0]
    return sorted(worse, key=lambda entry: (-entry["excess_low"], entry["task"], entry["slice"]))[:MOST_SLICES]
