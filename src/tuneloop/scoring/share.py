"""Which questions begin with the same tokens: shots, a header, a passage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tuneloop.scoring.tree import Tree

# What a shared beginning costs besides its tokens: a second attention over it for every token that comes after.
FREE_TOKENS = 8  # per tree
FREE_PREFIX = 32  # per shared beginning


@dataclass(slots=True)
class Cluster:
    """`trees` whose trunks begin with the same `length` tokens (0: nothing is shared)."""

    length: int
    trees: list[Tree]

    @property
    def prefix(self) -> list[int]:
        return self.trees[0].trunk[: self.length]


def clusters(trees: Sequence[Tree], limit: int, free: tuple[int, int] | None = None) -> list[Cluster]:
    """Disjoint clusters with beginnings of at most `limit` tokens that spare the most tokens.

    Trees are sorted by trunk; a stack over the lengths that neighbours share yields every maximal run with a common
    beginning, nested as a tree; each run is taken whole or as its best parts, whichever spares more.
    """
    order = sorted(trees, key=lambda tree: tree.trunk)
    shared = [_same(a.trunk, b.trunk, limit) for a, b in pairwise(order)]
    chosen = _best_runs(shared, free or (FREE_TOKENS, FREE_PREFIX))
    result, taken = [], 0
    alone: list[Tree] = []
    for start, stop, length in sorted(chosen):
        alone += order[taken:start]
        result.append(Cluster(length, order[start:stop]))
        taken = stop
    alone += order[taken:]
    return [*result, Cluster(0, alone)] if alone else result


def _same(a: list[int], b: list[int], limit: int) -> int:
    """Tokens that two trunks share at the beginning; the last one of each stays out, so that a read has a place."""
    most = min(len(a) - 1, len(b) - 1, limit)
    if most <= 0 or a[0] != b[0]:
        return 0
    if a[:most] == b[:most]:
        return most
    low, high = 1, most  # the first `low` tokens agree, the first `high` do not
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if a[low:middle] == b[low:middle] else (low, middle)
    return low


Run = tuple[int, int, int]  # first tree, one past the last, shared tokens


def _best_runs(shared: list[int], free: tuple[int, int]) -> list[Run]:
    """The disjoint runs that spare most, from the lengths shared by neighbours."""
    stack: list[tuple[int, int, int, list[Run]]] = [(0, 0, 0, [])]  # first tree, shared tokens, spared by parts, parts
    for i, length in enumerate([*shared, 0]):
        first, spared, parts = i, 0, list[Run]()
        while stack[-1][1] > length:
            first, depth, inner, runs = stack.pop()
            spared, parts = spared + inner, runs + parts
            whole = (i - first) * (depth - free[0]) - free[1]  # of i - first + 1 trees one computes it
            if whole > spared:
                spared, parts = whole, [(first, i + 1, depth)]
        if stack[-1][1] == length:
            start, _, inner, runs = stack.pop()
            stack.append((start, length, inner + spared, runs + parts))
        else:
            stack.append((first, length, spared, parts))
    return stack[0][3]
