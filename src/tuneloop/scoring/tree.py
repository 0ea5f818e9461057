"""What the options of one question share: a trunk of common tokens, then a tree of tokens with their own past only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tuneloop.scoring.pairs import Pair


@dataclass(slots=True)
class Tree:
    """`trunk`: tokens that every option shares. `nodes[i]` follows `parents[i]` (-1: the end of the trunk).

    `reads[o]`: for each scored token of option o, the node whose logits predict it (-1: the last token of the trunk).
    `request` and `options` say whose scores these are.
    """

    request: int
    options: list[int]
    trunk: list[int]
    nodes: list[int]
    parents: list[int]
    depths: list[int]
    reads: list[list[int]]
    targets: list[list[int]]

    @property
    def size(self) -> int:
        return len(self.trunk) + len(self.nodes)

    def branches(self) -> list[list[int]]:
        """Nodes by what they descend from: those of one branch see the trunk and each other, never another branch."""
        top: list[int] = []
        found: dict[int, list[int]] = {}
        for i, parent in enumerate(self.parents):
            top.append(i if parent < 0 else top[parent])
            found.setdefault(top[i], []).append(i)
        return list(found.values())

    def sees(self, nodes: Sequence[int]) -> np.ndarray:
        """[nodes, nodes] True where a node attends: itself and its ancestors."""
        n = len(nodes)
        if all(self.parents[b] == a for a, b in pairwise(nodes)):
            return np.tri(n, dtype=bool)
        place = {node: i for i, node in enumerate(nodes)}
        seen = np.zeros((n, n), dtype=bool)
        for i, node in enumerate(nodes):
            parent = place.get(self.parents[node])
            if parent is not None:
                seen[i, :i] = seen[parent, :i]
            seen[i, i] = True
        return seen


def build(request: int, options: Sequence[int], pairs: Sequence[Pair]) -> Tree:
    """The tree of some options of a request; equal beginnings stand there once, the last token of each not at all."""
    trunk = _common([pair.prompt for pair in pairs])
    tree = Tree(request, list(options), trunk, [], [], [], [], [list(pair.scored) for pair in pairs])
    found: dict[tuple[int, int], int] = {}
    for pair in pairs:
        at, read = -1, []
        rest = pair.prompt[len(trunk) :] + pair.scored
        first = len(pair.prompt) - len(trunk)
        for step, token in enumerate(rest):
            if step >= first:
                read.append(at)
            if step == len(rest) - 1:
                break
            if (at, token) not in found:
                found[at, token] = len(tree.nodes)
                tree.nodes.append(token)
                tree.parents.append(at)
                tree.depths.append(step)
            at = found[at, token]
        tree.reads.append(read)
    return tree


MOST_NODES = 4096  # options with more tokens than this stand in several trees


def trees_of(request: int, options: Sequence[int], pairs: Sequence[Pair]) -> list[Tree]:
    """Shared sequences for some options of a request. Options whose prompts were cut to the context in different
    places stand apart, and so many that they would not fit one pass."""
    apart: dict[tuple[int, int], list[int]] = {}
    for k, pair in enumerate(pairs):
        apart.setdefault((len(pair.prompt) if pair.cut else 0, pair.prompt[0]), []).append(k)
    found = []
    for members in apart.values():
        size = max(1, len(members) * MOST_NODES // max(1, sum(len(pairs[k].scored) for k in members)))
        for at in range(0, len(members), size):
            few = members[at : at + size]
            found.append(build(request, [options[k] for k in few], [pairs[k] for k in few]))
    return found


def chains_of(request: int, options: Sequence[int], pairs: Sequence[Pair]) -> list[Tree]:
    """One plain sequence an option, or for several that differ in the last token only, such as letters."""
    same: dict[tuple[int, ...], list[int]] = {}
    for k, pair in enumerate(pairs):
        same.setdefault(tuple(pair.prompt + pair.scored[:-1]), []).append(k)
    return [build(request, [options[k] for k in few], [pairs[k] for k in few]) for few in same.values()]


def _common(prompts: Sequence[list[int]]) -> list[int]:
    """The longest common beginning; at least one token stays in the trunk, which is what the first read needs."""
    first = prompts[0]
    if all(p == first for p in prompts):
        return first
    length = min(map(len, prompts))
    for i in range(length):
        if any(p[i] != first[i] for p in prompts):
            return first[:i]
    return first[:length]
