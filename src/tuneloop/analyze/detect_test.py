"""Causes in the benchmark, the prompts or the tune: cuts, wrong keys, option lengths, forgetting, weak slices."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tuneloop.analyze.causes import Tagged, probabilities
from tuneloop.analyze.evidence import Evidence, Finding, finding, ids, percent
from tuneloop.analyze.slices import LONG, excess_p, fold
from tuneloop.neighbours.tfidf import Index

FEWEST = 3
SURE = 0.9  # probability of the pick from which the model is sure; of these rows the surer half is judged by
# Once keys are known to be wrong, rows as clear as this are named too.
NAMED_SURE, NAMED_LITTLE = 0.7, 0.05
KNOWS = 0.75  # share of its sure answers that must be right before a model may judge a key
JUDGED = 40  # sure answers needed for that
EXPECTED = 0.04  # share of sure answers that are wrong when every key is right; 0.037 was the most seen
MASTERED = 2 / 3  # share of all rows that it must have right: EXPECTED is that of models that know the task
KEY_P = 0.01
FLIPS = 1e-3  # sign test of raw against length-normalised scoring
NARROW = 0.06  # share of the training rows that are like a task below which it is hardly trained
ABOVE = 0.1  # how far above chance a base must stand to have something to forget


def in_test(seen: Evidence) -> list[Finding]:
    """Findings about test rows; those about the training data come first and explain rows away."""
    found = _cut(seen) + _lengths(seen)
    explain(seen, found)
    keys = _keys(seen)
    explain(seen, keys)
    return found + keys + _forgotten(seen) + _weak(seen)


def _cut(seen: Evidence) -> list[Finding]:
    found = []
    for task, items in seen.by_task().items():
        cut = [item for item in items if item.row.get("truncated")]
        if len(cut) < FEWEST:
            continue
        wrong = sum(item.wrong for item in cut) / len(cut)
        found.append(
            finding(
                "truncated prompts", 4, len(cut) / len(items), task=task,
                what=f"{task}: {len(cut)} of {len(items)} prompts are longer than the context and lost their beginning",
                sure=f"counted by the scorer; wrong on {percent(wrong)} of them", rows=ids(cut),
                why="the model never saw the beginning of these prompts",
                do="tuneloop eval ... --set eval.few_shot=0, shorten these rows, or take a base of longer context",
            )
        )  # fmt: skip
    return found


def _lengths(seen: Evidence) -> list[Finding]:
    """Right answers much longer than the others lose because longer text has less probability."""
    from scipy.stats import binom

    found = []
    for task, items in seen.by_task().items():
        rows = [item for item in items if LONG in item.slices]
        known = [item for item in rows if item.row.get("correct_norm") is not None]
        if len(rows) < FEWEST:
            continue
        sides = [fold(item, seen.config.seed) for item in items]
        places = [i for i, item in enumerate(items) if LONG in item.slices]
        p = max(excess_p(places, [i.wrong for i in items], sides, side) for side in (0, 1))
        saved = sum(item.wrong and float(item.row["correct_norm"]) >= 0.5 for item in known)
        lost = sum(not item.wrong and float(item.row["correct_norm"]) < 0.5 for item in known)
        flips = float(binom.cdf(lost, saved + lost, 0.5)) if saved + lost else 1.0
        if p > seen.config.alpha or min(flips, excess_p(places, [i.wrong for i in items], [0] * len(items), 0)) > FLIPS:
            continue
        wrong = sum(item.wrong for item in rows) / len(rows)
        found.append(
            finding(
                "length-biased options", 3, len(rows) / len(items), task=task, slice=LONG,
                what=f"{task}: in {len(rows)} rows the right answer is much longer than the others, and loses by it",
                sure=f"wrong on {percent(wrong)}; scores by length mend {saved} of them and break {lost}; "
                f"p {flips:.1g}, and an excess of errors in both halves of the rows",
                rows=ids(rows), why="a sum of log-probabilities falls with every further word",
                do=f"report acc_norm for {task}, or make the options equally long",
            )
        )  # fmt: skip
    return found


def _forgotten(seen: Evidence) -> list[Finding]:
    worse = [entry for entry in seen.heads() if entry["verdict"] == "worse"]
    shares = _like(seen) if worse and seen.train else {}
    found = []
    for entry in worse:
        task = entry["task"]
        gone = [item for item in seen.by_task().get(task, []) if item.change == "forgotten"]
        high = entry["chance"] is None or entry["before"] > entry["chance"] + ABOVE
        narrow = high and task in shares and shares[task] < NARROW
        where = f"{percent(shares[task])} of the training rows are like this task" if task in shares else ""
        lost = -entry["diff"] if entry["unit"] == "points" else 0.1
        points = f"{100 * lost:.1f} points" if entry["unit"] == "points" else f"{-entry['diff']:.3f} nats a token"
        found.append(
            finding(
                "narrow data" if narrow else "forgetting", 3 if narrow else 2, lost, task=task,
                what=f"{task}: the tune is worse than the base by {points}"
                + (f"; only {where}" if narrow else ""),
                sure=f"{entry['n']} rows, {entry['test']}, corrected p {entry['p_adjusted']:.2g}"
                + (f"; {where}" if where and not narrow else "")
                + (f"; {entry['b']} rows lost, {entry['c']} gained" if entry["b"] is not None else ""),
                rows=ids(gone),
                why="the base had these right; what training does not show is overwritten",
                do="tuneloop run CONFIG --rounds 2 (replays rows of this kind), or halve train.learning_rate",
            )
        )  # fmt: skip
    return sorted(found, key=lambda f: -f["weight"])[:3]


def _like(seen: Evidence) -> dict[str, float]:
    """Share of the training rows whose nearest test prompt belongs to each task."""
    names = [name for name, prompts in seen.prompts.items() for _ in prompts]
    index = Index([p for prompts in seen.prompts.values() for p in prompts])
    near, values = index.nearest([row.prompt or row.answer for row in seen.train], 1)
    hits = Counter(names[int(i[0])] for i, v in zip(near, values, strict=True) if len(i) and v[0] > 0.1)
    return {name: hits[name] / len(seen.train) for name in seen.prompts}


def surest(items: list[Tagged]) -> list[Tagged]:
    """The surer half of the rows in which one option has nearly all the probability."""
    sure = [(max(probabilities(item.row), default=0.0), k) for k, item in enumerate(items)]
    ranked = sorted((-p, k) for p, k in sure if p > SURE)
    return [items[k] for _, k in ranked[: len(ranked) // 2]]


def clear(items: list[Tagged]) -> list[Tagged]:
    """Wrong rows in which one option stands out and the key has hardly any probability."""
    found = []
    for item in items:
        p, gold = probabilities(item.row), int(item.row.get("gold", -1))
        if item.wrong and 0 <= gold < len(p) and max(p) > NAMED_SURE and p[gold] < NAMED_LITTLE:
            found.append(item)
    return found


def _keys(seen: Evidence) -> list[Finding]:
    """Keys the tune contradicts, on rows that no gap in training, no cut and no option length already explains."""
    from scipy.stats import binom

    found = []
    for task, items in seen.by_task().items():
        if sum(item.wrong for item in items) > (1 - MASTERED) * len(items):
            continue
        left = [item for item in items if not item.explained]
        sure = surest(left)
        against = sum(item.wrong for item in sure)
        if against < FEWEST or len(sure) < JUDGED or against > (1 - KNOWS) * len(sure):
            continue
        p = float(binom.sf(against - 1, len(sure), EXPECTED))
        if p > KEY_P or seen.in_a_slice(task, [item for item in sure if item.wrong]):
            continue
        odd = clear(left)
        for item in odd:
            item.causes.append("label suspect")
        odd.sort(key=lambda item: probabilities(item.row)[int(item.row["gold"])])
        found.append(
            finding(
                "wrong gold", 3, len(odd) / len(left), task=task,
                what=f"{task}: {len(odd)} answers of the key are probably wrong",
                sure=f"where the tune is surest, the key agrees in {len(sure) - against} of {len(sure)} rows; "
                f"p {p:.1g} if all keys were right, and the others lie in no one slice",
                rows=ids(odd), why="a model that is right when it is sure contradicts the key here",
                do="tuneloop review export ANALYSIS --out review.csv and check these rows",
                suggested=[{"row": str(i.row["row"]), "says": i.row["options"][int(i.row["pred"])]} for i in odd],
            )
        )  # fmt: skip
    return found


def explain(seen: Evidence, found: list[Finding]) -> None:
    """Marks the test rows that these findings explain, so that no second cause is read into them."""
    taken: dict[str, set[str]] = {}
    for entry in found:
        if entry["of"] == "test" and entry.get("task"):
            taken.setdefault(entry["task"], set()).update(entry["rows"])
    for item in seen.tagged:
        item.explained = item.explained or str(item.row["row"]) in taken.get(item.task, ())


def _weak(seen: Evidence) -> list[Finding]:
    found: list[Finding] = []
    taken = [item for item in seen.tagged if item.explained]
    chance = seen.at_chance()
    rows = {(item.task, str(item.row["row"])) for item in taken}
    for entry in seen.slices:
        own = {(entry["task"], row) for row in entry["rows"]}
        if not entry["confirmed"] or entry["task"] in chance or len(own & rows) > 0.5 * len(own):
            continue
        found.append(_slice(entry))
    return found[:3]


def _slice(entry: dict[str, Any]) -> Finding:
    also = f" (also: {', '.join(entry['also'][:3])})" if entry["also"] else ""
    return finding(
        "weak slice", 1, entry["excess_low"] / 100, task=entry["task"], slice=entry["slice"],
        what=f"{entry['task']}, {entry['slice']}: {percent(entry['rate'])} wrong against {percent(entry['expected'])} "
        f"overall{also}",
        sure=f"{entry['errors']} of {entry['n']} rows; found on one half, corrected p {entry['p_adjusted']:.2g} on the "
        "other",
        rows=entry["rows"], why="this group of rows is harder for the tune than the rest of the task",
        do="tuneloop run CONFIG --rounds 2, or add training rows of this kind",
    )  # fmt: skip
