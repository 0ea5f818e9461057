"""Nameable groups of rows with more errors than their size explains: chosen on one fold, confirmed on the other."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from typing import Any

import numpy as np

from tuneloop.analyze.causes import Tagged
from tuneloop.neighbours.tfidf import topics
from tuneloop.stats import benjamini_hochberg, wilson
from tuneloop.text import share, words

NEGATION = re.compile(r"\b(?:not|no|never|none|except|least|without|cannot|\w+n't)\b", re.IGNORECASE)
QUESTION_WORDS = ("what", "which", "who", "whose", "where", "when", "why", "how")
MOST_SLICES = 30
MOST_WORDS = 60
ROWS_A_TOPIC = 40
MOST_TOPICS = 20
CHOOSE = 0.2  # one-sided p on the first fold below which a slice is worth the second
ALIKE = 0.7  # slices that share this much of their rows are one


def add_slices(tagged: list[Tagged], smallest: int, seed: int) -> None:
    """Fills `slices` of every row with its names. Names come from the text, never from who was right."""
    by_task: dict[str, list[Tagged]] = defaultdict(list)
    for item in tagged:
        by_task[item.task].append(item)
    for items in by_task.values():
        questions = [len(question(item)) for item in items]
        options = [_option_length(item) for item in items]
        for item, long, option in zip(items, _bins(questions), _bins(options), strict=True):
            item.slices = _names(item)
            item.slices += [f"question length {long}"] if long else []
            item.slices += [f"option length {option}"] if option else []
        _add_words(items, smallest)
        _add_topics(items, smallest, seed)


def question(item: Tagged) -> str:
    return str(item.row.get("question") or "")


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
    row, text = item.row, question(item)
    spoken = re.findall(r"[a-z']+", text.lower())
    found = [f"category {row['category']}"] if row.get("category") else []
    found.append("with a negation" if NEGATION.search(text) else "without a negation")
    found.append("with numbers" if re.search(r"\d", text) else "without numbers")
    asked = next((word for word in spoken if word in QUESTION_WORDS), "")
    found.append(f"asks '{asked}'" if asked else "no question word")
    return found + _option_names(row)


def _option_names(row: dict[str, Any]) -> list[str]:
    options, gold = [str(o) for o in row.get("options") or []], row.get("gold")
    if gold is None or not 0 <= int(gold) < len(options):
        return []
    if len(options) > 10:
        return [f"label {options[int(gold)]}"]
    found = [f"{len(options)} options"]
    if len(options) > 1:
        found.append(f"right answer in place {int(gold) + 1}")
        found += _gold_length(options, int(gold))
        found.append("options alike" if _alike(options) > 0.5 else "options unlike")
    return found


def _gold_length(options: list[str], gold: int) -> list[str]:
    """Whether the right answer is half as long again as the mean of the others, or shorter by the same factor."""
    others = [len(o) for i, o in enumerate(options) if i != gold]
    mean = sum(others) / len(others)
    if len(options[gold]) >= 1.5 * mean + 3:
        return [LONG]
    return [SHORT] if 1.5 * len(options[gold]) + 3 <= mean else []


LONG = "right answer much longer than the others"
SHORT = "right answer much shorter than the others"


def _alike(options: list[str]) -> float:
    """Mean share of words that two options have in common."""
    sets = [set(words(o)) for o in options[:6]]
    pairs = [(a, b) for i, a in enumerate(sets) for b in sets[:i] if a | b]
    return sum(len(a & b) / len(a | b) for a, b in pairs) / len(pairs) if pairs else 0.0


def _add_words(items: list[Tagged], smallest: int) -> None:
    """The commonest words that at least `smallest` rows and at most half of them hold."""
    sets = [set(words(question(item))) for item in items]
    counts = Counter(word for one in sets for word in one)
    common = [w for w, n in counts.most_common() if smallest <= n <= len(items) / 2 and len(w) > 1][:MOST_WORDS]
    kept = set(common)
    for item, one in zip(items, sets, strict=True):
        item.slices += [f"word '{word}'" for word in sorted(one & kept)]


def _add_topics(items: list[Tagged], smallest: int, seed: int) -> None:
    count = min(MOST_TOPICS, len(items) // max(ROWS_A_TOPIC, smallest))
    found, names = topics([question(item) for item in items], count, seed)
    for item, topic in zip(items, found, strict=True):
        if names[topic]:
            item.slices.append(f"topic '{names[topic]}'")


def fold(item: Tagged, seed: int) -> int:
    """0 or 1; rows of one group, and the same row of another task, are on the same side."""
    return int(share(str(item.row.get("group") or item.row["row"]), seed) >= 0.5)


def worst(tagged: list[Tagged], smallest: int, alpha: float, seed: int) -> list[dict[str, Any]]:
    """Slices with more errors than the rest of their task, confirmed ones first, then by the bound of the excess.

    Those with an excess on the first fold are tested on the second: `p` and `p_adjusted` (Benjamini-Hochberg over the
    slices tested) are of the second fold alone, the counts of both.
    """
    by_task: dict[str, list[Tagged]] = defaultdict(list)
    for item in tagged:
        by_task[item.task].append(item)
    found = [entry for items in by_task.values() for entry in _search(items, smallest, seed)]
    for entry, adjusted in zip(found, benjamini_hochberg([entry["p"] for entry in found]), strict=True):
        entry["p_adjusted"] = adjusted
        entry["confirmed"] = adjusted <= alpha and entry["excess_low"] > 0
    found.sort(key=lambda e: (not e["confirmed"], -e["excess_low"], e["task"], e["slice"]))
    return _merged(found)[:MOST_SLICES]


def _search(items: list[Tagged], smallest: int, seed: int) -> list[dict[str, Any]]:
    sides = [fold(item, seed) for item in items]
    if len(set(sides)) < 2 or min(sides.count(0), sides.count(1)) < smallest:
        sides = [i % 2 for i in range(len(items))]
    groups: dict[str, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        for name in item.slices:
            groups[name].append(place)
    wrong = [item.wrong for item in items]
    rate = sum(wrong) / len(items)
    found = []
    for name, places in groups.items():
        n, errors = len(places), sum(wrong[i] for i in places)
        if not smallest <= n < len(items) or excess_p(places, wrong, sides, 0) > CHOOSE:
            continue
        low, high = wilson(errors, n)
        entry: dict[str, Any] = {"task": items[0].task, "slice": name, "n": n, "errors": errors}
        entry |= {"rate": errors / n, "low": low, "high": high, "expected": rate}
        entry |= {"excess": errors - n * rate, "excess_low": (low - rate) * n, "p": excess_p(places, wrong, sides, 1)}
        if entry["excess"] > 0:
            found.append(entry | {"also": [], "rows": [str(items[i].row["row"]) for i in places]})
    return found


def excess_p(places: list[int], wrong: list[bool], sides: list[int], side: int) -> float:
    """Probability of so many errors among the slice's rows of one fold, drawn from the rows of that fold."""
    from scipy.stats import hypergeom

    inside = [i for i in places if sides[i] == side]
    whole = [i for i in range(len(wrong)) if sides[i] == side]
    if not inside:
        return 1.0
    errors, total = sum(wrong[i] for i in inside), sum(wrong[i] for i in whole)
    return float(hypergeom.sf(errors - 1, len(whole), total, len(inside)))


def _merged(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A slice whose rows are mostly those of a better one only lends it its name."""
    kept: list[dict[str, Any]] = []
    sets: list[set[str]] = []
    for entry in found:
        rows = set(entry["rows"])
        for other, known in zip(kept, sets, strict=True):
            if other["task"] == entry["task"] and len(rows & known) >= ALIKE * len(rows | known):
                other["also"].append(entry["slice"])
                break
        else:
            kept.append(entry)
            sets.append(rows)
    return kept
