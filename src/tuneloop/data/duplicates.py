"""Repeated rows on their keys: which are left out, against which row, and which prompts are near one another.

The row kept of a cluster is the one with the highest mean of `scores`, then the earliest. A row is left out only
against a row that is kept and that it is near to itself, not through a chain. Rows of a test split stay, marked.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.console import progress, warn
from tuneloop.data.keys import Keys
from tuneloop.neighbours.minhash import BANDS, candidates, combine, jaccard

I64 = NDArray[np.int64]
# A group above this share of the rows is a template, not a text: it is looked at again with the next threshold. Joined
# bands find what is that near: 1 - (1 - s^(5k))^(25/k) is above 0.99 for each pair of threshold and k.
GIANT, GIANT_ROWS = 0.1, 100
TIGHTER = ((0.9, 2), (0.95, 3), (0.99, 5), (1.01, 0))
CODES = (
    "",
    "duplicate",
    "near_duplicate",
    "other_answer",
    "contaminated",
    "in_test",
    "in_valid",
    "bridges_splits",
    "not_sampled",
)
TEST = 0  # hint of a row that stands in a test split by its file; 1 valid, 2 neither


@dataclass
class Decisions:
    """For every row: index into CODES (0 is kept), the row it goes for (-1: none), and a share or similarity."""

    code: NDArray[np.uint8]
    other: NDArray[np.int32]
    value: NDArray[np.float32]
    marked: set[int] = field(default_factory=set)  # test rows that repeat another

    @classmethod
    def of(cls, count: int) -> Decisions:
        return cls(np.zeros(count, np.uint8), np.full(count, -1, np.int32), np.zeros(count, np.float32))

    def refuse(self, rows: Any, code: str, other: Any = -1, value: Any = 0.0) -> None:
        self.code[rows] = CODES.index(code)
        self.other[rows] = other
        self.value[rows] = value


def drop_repeated(keys: Keys, name: str, code: str, hints: NDArray[np.uint8], decided: Decisions) -> None:
    """Of the rows with equal `name` within one split hint, all but the best go."""
    rows = np.flatnonzero(keys.ok & (decided.code == 0))
    held = combine(keys[name][rows], hints[rows])
    order = rows[np.lexsort((rows, -keys["score"][rows], held))]
    ranked = combine(keys[name][order], hints[order])
    first = np.ones(len(order), bool)
    first[1:] = ranked[1:] != ranked[:-1]
    kept = order[np.maximum.accumulate(np.where(first, np.arange(len(order)), 0))] if len(order) else order
    gone = ~first
    test = gone & (hints[order] == TEST)
    decided.marked.update(order[test].tolist())
    gone &= ~test
    decided.refuse(order[gone], code, kept[gone], 1.0)


@dataclass
class Near:
    """Pairs of rows (earlier, later) with their similarity: `same` pairs also ask for and answer the same."""

    earlier: I64
    later: I64
    similarity: NDArray[np.float32]
    same: NDArray[np.bool_]


def find_near(keys: Keys, hints: NDArray[np.uint8], decided: Decisions, threshold: float) -> Near:
    """Verified pairs among the rows that are left, by one row for each prompt; `same` pairs among all rows."""
    rows = np.flatnonzero(keys.ok & (decided.code == 0))
    firsts = rows[np.sort(np.unique(keys["prompt"][rows], return_index=True)[1])]
    same = combine(keys["near"][rows], hints[rows])
    packed = np.zeros(0, np.uint64)
    alike = np.zeros(0, np.uint64)
    with progress("near-duplicates", BANDS + 1) as bar:
        for number in range(BANDS):
            band = keys.band(number)
            packed = np.union1d(packed, _pack(firsts, *candidates(band[firsts])))
            alike = np.union1d(alike, _pack(rows, *candidates(combine(band[rows], same))))
            bar.advance()
        every = np.union1d(packed, alike)
        earlier, later = _unpack(every)
        similarity = jaccard(earlier, later, keys.grams)
        bar.advance()
    near = similarity >= threshold
    return Near(earlier[near], later[near], similarity[near], np.isin(every[near], alike))


def _pack(rows: I64, earlier: I64, later: I64) -> NDArray[np.uint64]:
    """Sorted by the later row first: what an old row meets does not change when rows are added."""
    return np.unique((rows[later].astype(np.uint64) << np.uint64(32)) | rows[earlier].astype(np.uint64))


def _unpack(packed: NDArray[np.uint64]) -> tuple[I64, I64]:
    return (packed & np.uint64(0xFFFFFFFF)).astype(np.int64), (packed >> np.uint64(32)).astype(np.int64)


def _components(count: int, earlier: I64, later: I64) -> NDArray[np.int32]:
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(len(earlier), bool), (earlier, later)), shape=(count, count))
    found: NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return found


def tighten(keys: Keys, near: Near, decided: Decisions) -> tuple[Near, list[dict[str, Any]]]:
    """Without the pairs that make a template of a tenth of the rows one group; and what was found, for the report."""
    told: list[dict[str, Any]] = []
    alive = keys.ok & (decided.code == 0)
    limit = max(GIANT_ROWS, int(GIANT * alive.sum()))
    for threshold, join in TIGHTER:
        giants = _giants(keys, near, alive, limit)
        if not giants:
            break
        asked = f"similarity {threshold:g}" if join else "the same prompt"
        largest = max(size for _, size in giants)
        what = f"{len(giants)} groups of up to" if len(giants) > 1 else "a group of"
        warn(f"{what} {largest:,} rows ({largest / alive.sum():.0%}) share most of their words: regrouped at {asked}")
        for members, size in giants:
            told.append({"rows": size, "row": int(members[0]), "threshold": threshold})
            near = _regroup(keys, near, members, threshold, join)
    return near, told


def _giants(keys: Keys, near: Near, alive: NDArray[np.bool_], limit: int) -> list[tuple[I64, int]]:
    """(first row of each prompt, rows in all) of every component that is too large."""
    component = _components(keys.count, near.earlier, near.later)
    rows = np.flatnonzero(alive)
    # Copies of a prompt count with its first row.
    _, first, inverse = np.unique(keys["prompt"][rows], return_index=True, return_inverse=True)
    owner = component[rows[first]]
    sizes = np.bincount(owner[inverse], minlength=keys.count)
    parts = np.bincount(owner, minlength=keys.count)
    large = np.flatnonzero((sizes > limit) & (parts > 1))
    return [(np.sort(rows[first[owner == one]]), int(sizes[one])) for one in large]


def _regroup(keys: Keys, near: Near, members: I64, threshold: float, join: int) -> Near:
    inside = np.zeros(keys.count, bool)
    inside[members] = True
    keep = ~(inside[near.earlier] & inside[near.later]) | (near.similarity >= threshold)
    kept = Near(near.earlier[keep], near.later[keep], near.similarity[keep], near.same[keep])
    if not join:
        return kept
    packed = np.zeros(0, np.uint64)
    for start in range(0, BANDS - join + 1, join):
        key = keys.band(start)[members].astype(np.uint64)
        for more in range(1, join):
            key = combine(key, keys.band(start + more)[members])
        packed = np.union1d(packed, _pack(members, *candidates(key)))
    packed = np.setdiff1d(packed, (kept.later.astype(np.uint64) << np.uint64(32)) | kept.earlier.astype(np.uint64))
    earlier, later = _unpack(packed)
    similarity = jaccard(earlier, later, keys.grams)
    good = similarity >= threshold
    same = keys["near"][earlier] == keys["near"][later]
    return Near(
        np.concatenate([kept.earlier, earlier[good]]),
        np.concatenate([kept.later, later[good]]),
        np.concatenate([kept.similarity, similarity[good]]),
        np.concatenate([kept.same, same[good]]),
    )


def drop_near(keys: Keys, near: Near, hints: NDArray[np.uint8], decided: Decisions) -> None:
    """Best rows first: a row goes when it is near to a row that stays, and the two ask for and answer the same."""
    pairs = near.same & (hints[near.earlier] == hints[near.later])
    meets: dict[int, list[tuple[int, float]]] = {}
    for one, two, similarity in zip(
        near.earlier[pairs].tolist(), near.later[pairs].tolist(), near.similarity[pairs].tolist(), strict=True
    ):
        meets.setdefault(one, []).append((two, similarity))
        meets.setdefault(two, []).append((one, similarity))
    kept: set[int] = set()
    for row in sorted(meets, key=lambda r: (-keys["score"][r], r)):
        against = [(similarity, -other) for other, similarity in meets[row] if other in kept]
        if not against:
            kept.add(row)
        elif hints[row] == TEST:
            decided.marked.add(row)
            kept.add(row)
        else:
            similarity, other = max(against)
            decided.refuse(row, "near_duplicate", -other, similarity)
