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
TAIL = 0.2  # share of the rows of the other kinds whose loss counts as high
# Kinds of answers without wrong ones held 2.2 times as many high losses as the others at most, in the worlds looked
# at; with 40 % wrong at least 3.0 times as many.
TIMES = 2.6
FEWEST = 40  # rows of a kind of answer
FEWEST_WORDED = 5  # rows of a wording before its answers say what it asks for
ALIKE = 0.25  # overlap of answers from which two wordings ask for the same kind of thing
COMMON = 0.02  # share of the rows from which a word belongs to the wording and not to the content


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
    """Rows of one kind of answer (foods, say) whose losses stayed high far more often than those of the other kinds."""
    frames: dict[tuple[str, str], list[int]] = defaultdict(list)
    for i, row in enumerate(train):
        if i not in skip and math.isfinite(row.later_loss) and row.prompt.strip():
            frames[frame(row.prompt)].append(i)
    # Rows without a frame are too unlike one another for their losses to be compared.
    frames.pop(("", ""), None)
    found = [s for places in frames.values() for s in _suspects(train, places)]
    return max(found, key=lambda s: len(s.places), default=None)


def _suspects(train: list[Shown], places: list[int]) -> list[Suspects]:
    """Suspects among rows of one layout, a kind of answer at a time; none where there are fewer than three kinds."""
    kinds = [kind for kind in _kinds(train, places) if len(kind) >= FEWEST]
    if len(kinds) < 3:
        return []
    stayed = {i: math.sqrt(max(0.0, train[i].later_loss) * max(0.0, train[i].last_loss)) for k in kinds for i in k}
    found = []
    for kind in kinds:
        others = [i for other in kinds if other is not kind for i in other]
        high = float(np.quantile([stayed[i] for i in others], 1 - TAIL))
        hits = sum(stayed[i] > high for i in kind)
        if hits <= TIMES * TAIL * len(kind):
            continue
        # As many rows as there are high losses beyond those that the other kinds have as well.
        many = round((hits - TAIL * len(kind)) / (1 - TAIL))
        rows = sorted(kind, key=lambda i: -stayed[i])[:many]
        about = _about(train, kind, others)
        found.append(Suspects(rows, {}, about, len(kind), "their loss stayed high after the first time they were seen"))
    return found


def _kinds(train: list[Shown], places: list[int]) -> list[list[int]]:
    """Rows by what is asked for: wordings that draw on the same answers ask for one kind of thing."""
    spoken = {i: words(train[i].prompt) for i in places}
    counts = Counter(word for one in spoken.values() for word in set(one))
    common = {word for word, n in counts.items() if n >= COMMON * len(places)}
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for i in places:
        answers[" ".join(w if w in common else "…" for w in spoken[i])][bare(train[i].answer)] += 1
    groups: list[Counter[str]] = []
    for own in sorted((a for a in answers.values() if a.total() >= FEWEST_WORDED), key=lambda a: -a.total()):
        alike = [group for group in groups if _overlap(own, group) > ALIKE]
        merged = sum(alike, own)
        groups = [group for group in groups if not any(group is other for other in alike)] + [merged]
    kept = [group for group in groups if group.total() >= FEWEST]
    kinds: list[list[int]] = [[] for _ in kept]
    for i in places:
        said = bare(train[i].answer)
        most = max(range(len(kept)), key=lambda k: kept[k][said], default=None)
        if most is not None and kept[most][said]:
            kinds[most].append(i)
    return kinds


def _overlap(one: Counter[str], other: Counter[str]) -> float:
    """Share of answers in common: 1 where both draw the same answers equally often."""
    return sum(min(n / one.total(), other[answer] / other.total()) for answer, n in one.items())


def _about(train: list[Shown], kind: list[int], others: list[int]) -> list[str]:
    """Words that these rows hold and the others hardly do, commonest first."""
    inside = Counter(word for i in kind for word in set(words(train[i].prompt)))
    outside = Counter(word for i in others for word in set(words(train[i].prompt)))
    share = {w: n / len(kind) for w, n in inside.items() if n / len(kind) > 5 * outside[w] / len(others)}
    return sorted((w for w in share if share[w] >= 0.1), key=lambda w: -share[w])
