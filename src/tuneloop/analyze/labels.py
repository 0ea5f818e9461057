"""Training rows whose answer is probably wrong: neighbours say otherwise, or the loss stayed high where others fell."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass

import numpy as np

from tuneloop.analyze.layout import frame
from tuneloop.analyze.training import Shown, bare
from tuneloop.neighbours.tfidf import out_of_fold
from tuneloop.text import words

FOLDS = 5
# Banking77, train split with 5 % of the labels flipped by a generator of seed 0: 0.94 of those named were flipped.
BEST = 0.2  # probability of the label that the neighbours would give
GIVEN = 0.01  # probability of the label that stands there
TAIL = 0.95  # a loss above this quantile of the rows outside a group is a high one
NAMED = 0.85  # quantile above which a row of such a group is named
FEWEST = 40  # rows of a group of words
# Groups that are hard without a wrong label reached 3.1 times in the worlds looked at, groups with flips 3.9 and 5.4.
TIMES = 3.3
SURE = 1e-3
WIDER = 2.5  # most times that a group may grow by the rows that answer alike


@dataclass(slots=True)
class Suspects:
    """Places of suspected rows, surest first; `of` names the group of rows they stand in, empty for all of them."""

    places: list[int]
    says: dict[int, str]  # place -> the answer that the neighbours would give
    of: list[str]
    checked: int
    evidence: str


def by_neighbours(train: list[Shown], seed: int) -> Suspects | None:
    """Labels that a linear model over words, fitted without the row, is sure are others. None without labels."""
    places = [i for i, row in enumerate(train) if row.label and row.prompt.strip()]
    labels = [str(train[i].label) for i in places]
    counts = Counter(labels)
    if len(counts) < 2 or len(places) < 10 * FOLDS or len(counts) > len(places) / 3:
        return None
    shares, names = out_of_fold([train[i].prompt for i in places], labels, FOLDS, seed)
    index = {name: k for k, name in enumerate(names)}
    found = []
    for row, (place, label) in enumerate(zip(places, labels, strict=True)):
        given, best = float(shares[row, index[label]]), int(shares[row].argmax())
        # A label of a handful of rows cannot be judged by its neighbours.
        if counts[label] > FOLDS and shares[row, best] > BEST and given < GIVEN:
            found.append((given / float(shares[row, best]), place, names[best]))
    found.sort()
    says = {place: name for _, place, name in found}
    return Suspects([p for _, p, _ in found], says, [], len(places), "a model over their words, fitted without them")


def by_loss(train: list[Shown], skip: set[int]) -> Suspects | None:
    """Rows about one thing (some word) whose losses stayed high far more often than in rows alike in form."""
    frames: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(train):
        if i not in skip and math.isfinite(row.later_loss) and row.prompt.strip():
            frames[frame(row.prompt)].append(i)
    # Rows without a frame are too unlike one another for their losses to be compared.
    frames.pop(("", ""), None)
    best: Suspects | None = None
    for places in frames.values():
        found = _group(train, places)
        if found and (best is None or len(found.places) > len(best.places)):
            best = found
    return best


def _group(train: list[Shown], places: list[int]) -> Suspects | None:
    losses = np.array([train[i].later_loss for i in places])
    sets = [set(words(train[i].prompt)) for i in places]
    counts = Counter(word for one in sets for word in one)
    names = [w for w, n in counts.items() if FEWEST <= n <= len(places) / 2]
    odd = [w for w in names if _tail(losses, np.array([w in one for one in sets]), len(names))]
    if not odd:
        return None
    inside = np.array([bool(one & set(odd)) for one in sets])
    if not _tail(losses, inside, len(names)):
        return None
    wider = inside | _same_answers(train, places, inside)
    # Answers that every group gives ('yes') say nothing about what a row is about.
    inside = wider if wider.sum() <= WIDER * inside.sum() and not wider.all() else inside
    high = float(np.quantile(losses[~inside], NAMED))
    hits = [i for i in np.argsort(-losses) if inside[i] and losses[i] > high]
    found = [places[int(i)] for i in hits]
    odd.sort(key=lambda w: -counts[w])
    return Suspects(found, {}, odd, int(inside.sum()), "their loss stayed high after the first time they were seen")


def _same_answers(train: list[Shown], places: list[int], inside: np.ndarray) -> np.ndarray:
    """Rows that answer with what mostly the group answers with: they are about the same, in other words."""
    answers = [bare(train[i].answer) for i in places]
    own = Counter(a for a, here in zip(answers, inside, strict=True) if here)
    every = Counter(answers)
    kept = {a for a, n in own.items() if n >= 2 and n > 0.3 * every[a]}
    return np.array([a in kept for a in answers])


def _tail(losses: np.ndarray, inside: np.ndarray, tried: int) -> bool:
    """Whether the group holds far more high losses than the rest of the rows."""
    from scipy.stats import binom

    n = int(inside.sum())
    if n < FEWEST or n == len(losses):
        return False
    high = float(np.quantile(losses[~inside], TAIL))
    hits = int((losses[inside] > high).sum())
    p = float(binom.sf(hits - 1, n, 1 - TAIL)) * max(1, tried)
    return p < SURE and hits / n > TIMES * (1 - TAIL)
