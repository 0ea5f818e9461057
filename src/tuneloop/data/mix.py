"""How much of each source: caps, weights and epochs. Which rows stay is fixed by their ids, so that adding rows to a
source replaces few of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.config.data import SourceSpec
from tuneloop.data.duplicates import Decisions
from tuneloop.data.keys import Keys
from tuneloop.neighbours.minhash import mix


def apply(
    keys: Keys,
    sources: list[SourceSpec],
    owner: NDArray[np.int64],
    split: NDArray[np.uint8],
    train: int,
    decided: Decisions,
) -> tuple[NDArray[np.uint8], list[dict[str, Any]]]:
    """(how often each row is laid down [N], a line a source for the profile). `owner[part]`: index into `sources`.

    A cap is on all rows kept of a source but those of a test split. Weights are shares of the training rows laid down:
    the source that is short for its weight sets the size, and the others give up what is too much.
    """
    source = owner[keys["part"]]
    times = np.ones(keys.count, np.uint8)
    kept = keys.ok & (decided.code == 0)
    for number, spec in enumerate(sources):
        own = np.flatnonzero(kept & (source == number))
        if spec.cap is not None:
            movable = own[split[own] == train]
            _leave(movable, max(0, len(movable) - max(0, len(own) - spec.cap)), keys, decided)
        times[own] = min(spec.epochs, 255)
    lines = _weigh(keys, sources, source, split, train, times, decided)
    times[(split != train) | (decided.code != 0)] = 1
    return times, lines


def _leave(rows: NDArray[np.int64], most: int, keys: Keys, decided: Decisions) -> None:
    """All but the `most` with the smallest hashes go."""
    order = rows[np.argsort(mix(keys["id"][rows]), kind="stable")]
    decided.refuse(order[most:], "not_sampled", -1, most / max(1, len(rows)))


def _weigh(
    keys: Keys,
    sources: list[SourceSpec],
    source: NDArray[np.int64],
    split: NDArray[np.uint8],
    train: int,
    times: NDArray[np.uint8],
    decided: Decisions,
) -> list[dict[str, Any]]:
    rows = [
        np.flatnonzero(keys.ok & (decided.code == 0) & (split == train) & (source == n)) for n in range(len(sources))
    ]
    weighed = [n for n, spec in enumerate(sources) if spec.weight is not None and len(rows[n])]
    total = sum(sources[n].weight or 0 for n in weighed)
    size = min((len(rows[n]) * sources[n].epochs / ((sources[n].weight or 1) / total) for n in weighed), default=0.0)
    lines = []
    for number, spec in enumerate(sources):
        if number in weighed:
            want = round(size * (spec.weight or 0) / total)
            _leave(rows[number], min(len(rows[number]), -(-want // spec.epochs)), keys, decided)
        left = rows[number][decided.code[rows[number]] == 0]
        lines.append(
            {
                "source": spec.path,
                "weight": spec.weight,
                "cap": spec.cap,
                "epochs": spec.epochs,
                "train_rows": len(left),
                "laid_down": int(times[left].sum()),
            }
        )
    return lines
