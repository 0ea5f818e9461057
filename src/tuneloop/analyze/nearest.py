"""The training rows nearest to each wrong row: what the model was shown that looks like it, and what it said."""

from __future__ import annotations

from dataclasses import dataclass

from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.training import Shown
from tuneloop.neighbours.tfidf import Index

MOST = 3
LEAST = 0.1  # cosine under which two texts have next to nothing in common


@dataclass(slots=True)
class Near:
    id: str
    place: str
    similarity: float
    answer: str


def nearest(train: list[Shown], tagged: list[Tagged]) -> dict[tuple[str, str], list[Near]]:
    """(task, row) of every wrong row -> its nearest training rows by TF-IDF, nearest first; [] where none is near."""
    wrong = [item for item in tagged if item.wrong and item.row.get("question")]
    if not train or not wrong:
        return {}
    index = Index([row.prompt or row.answer for row in train])
    places, values = index.nearest([str(item.row["question"]) for item in wrong], MOST)
    found = {}
    for item, near, close in zip(wrong, places, values, strict=True):
        rows = [(train[int(i)], float(v)) for i, v in zip(near, close, strict=True) if v >= LEAST]
        kept = [Near(row.id, row.place, round(v, 4), row.answer[:200]) for row, v in rows]
        found[item.task, str(item.row["row"])] = kept
    return found
