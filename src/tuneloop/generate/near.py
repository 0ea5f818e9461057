"""Near-duplicates of a growing set, with the shingles, bands and threshold by which the data stage finds them."""

from __future__ import annotations

import numpy as np

from tuneloop.generate.candidate import question_of
from tuneloop.generate.rules import final_answer
from tuneloop.neighbours.minhash import bands, shingles
from tuneloop.records import Example
from tuneloop.text import normalise

# A bucket shows its first members only, so that a common phrase costs no scan; as in the data stage.
SHOWN = 8


class NearDuplicates:
    """Compares prompt and answer together: the same prompt may well have another answer."""

    def __init__(self, threshold: float) -> None:
        self.threshold = threshold
        self._grams: list[np.ndarray] = []
        self._ids: list[str] = []
        self._buckets: dict[tuple[int, int], list[int]] = {}

    def find(self, row: Example) -> tuple[str, float] | None:
        """The nearest row at or above the threshold, and its Jaccard similarity."""
        mine, keys = _signature(row)
        seen = {other for key in keys for other in self._buckets.get(key, ())}
        best: tuple[str, float] | None = None
        for other in sorted(seen):
            theirs = self._grams[other]
            shared = len(np.intersect1d(mine, theirs, assume_unique=True))
            similarity = shared / (len(mine) + len(theirs) - shared)
            if similarity >= self.threshold and (best is None or similarity > best[1]):
                best = (self._ids[other], similarity)
        return best

    def add(self, row: Example) -> None:
        mine, keys = _signature(row)
        for key in keys:
            bucket = self._buckets.setdefault(key, [])
            if len(bucket) < SHOWN:
                bucket.append(len(self._grams))
        self._grams.append(mine)
        self._ids.append(row.id)


def _signature(row: Example) -> tuple[np.ndarray, list[tuple[int, int]]]:
    values, offsets = shingles([normalise(f"{question_of(row)}\n{final_answer(row)}")])
    return values, [(band, int(key)) for band, key in enumerate(bands(values, offsets)[0])]
