"""Rows that stand more than once: near-copies and contradictions inside the training data, test rows inside it."""

from __future__ import annotations

from collections import defaultdict

from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.training import Shown, bare
from tuneloop.neighbours.tfidf import Index
from tuneloop.text import collapse, words

NEIGHBOURS = 12
NEAR = 0.55  # cosine below which two rows are not looked at
SHARED = 0.97  # share of the shorter row's word weight that the longer must hold
SIZE = 0.6  # the shorter row's word weight over the longer's
LEAST_WORDS = 4  # shorter questions repeat by chance
WHOLE = 0.5  # share of a training row's words that a test question inside it must make up,
LONG = 8  # unless it has so many words that it does not stand there by chance


def contradictions(train: list[Shown]) -> list[int]:
    """Places of rows whose question, word for word, stands again with another answer."""
    groups: dict[str, list[int]] = defaultdict(list)
    for place, row in enumerate(train):
        if row.prompt.strip():
            groups[bare(row.prompt)].append(place)
    odd = [places for places in groups.values() if len({bare(train[i].answer) for i in places}) > 1]
    return sorted(i for places in odd for i in places)


def copies(train: list[Shown]) -> list[list[int]]:
    """Groups of places whose rows say the same but for filler: equal answers, one question inside the other."""
    texts = [row.prompt or row.answer for row in train]
    index = Index(texts)
    weights = index.weights()
    sets = [frozenset(words(text)) for text in texts]
    mass = [sum(weights.get(w, 0.0) for w in one) for one in sets]
    parent = list(range(len(train)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for group in _same_text(train).values():
        for i in group[1:]:
            parent[root(i)] = root(group[0])
    places, values = index.nearest(texts, NEIGHBOURS)
    for i in range(len(train)):
        for j, value in zip(places[i], values[i], strict=True):
            if j <= i or value < NEAR or collapse(train[i].answer) != collapse(train[j].answer):
                continue
            small, large = sorted((mass[i], mass[j]))
            shared = sum(weights.get(w, 0.0) for w in sets[i] & sets[j])
            if small > 0 and shared >= SHARED * small and small >= SIZE * large:
                parent[root(int(j))] = root(i)
    groups: dict[int, list[int]] = defaultdict(list)
    for i in range(len(train)):
        groups[root(i)].append(i)
    return [group for group in groups.values() if len(group) > 1]


def _same_text(train: list[Shown]) -> dict[tuple[str, str], list[int]]:
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, row in enumerate(train):
        groups[bare(row.prompt), collapse(row.answer)].append(place)
    return groups


def leaks(train: list[Shown], tagged: list[Tagged]) -> list[tuple[Tagged, int]]:
    """(test row, place of the training row) where the test question stands in a training question, whole."""
    asked = [(item, bare(str(item.row.get("question") or ""))) for item in tagged]
    asked = [(item, text) for item, text in asked if len(text.split()) >= LEAST_WORDS]
    index = Index([row.prompt or row.answer for row in train])
    near, values = index.nearest([text for _, text in asked], NEIGHBOURS)
    held = [f" {bare(row.prompt or row.answer)} " for row in train]
    found = []
    for (item, text), places, close in zip(asked, near, values, strict=True):
        close_by = [int(i) for i, v in zip(places, close, strict=True) if v >= NEAR]
        hits = [i for i in close_by if f" {text} " in held[i] and _fills(text, held[i])]
        if hits:
            found.append((item, hits[0]))
    return found


def _fills(text: str, held: str) -> bool:
    """A few words inside a longer question are another question."""
    count = len(text.split())
    return count >= LONG or count >= WHOLE * len(held.split())
