"""One sequence for a prompt and all its options: a tree of tokens in which each sees its own past only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(slots=True)
class Tree:
    """`trunk`: tokens that every option shares. `nodes[i]` follows `parents[i]` (-1: the end of the trunk).

    `reads[o]`: for each scored token of option o, the node whose logits predict it (-1: the last token of the trunk).
    """

    trunk: list[int]
    nodes: list[int]
    parents: list[int]
    depths: list[int]
    reads: list[list[int]]
    targets: list[list[int]]

    def sees(self) -> np.ndarray:
        """[nodes, nodes] True where a node attends: itself and its ancestors."""
        n = len(self.nodes)
        seen = np.zeros((n, n), dtype=bool)
        for i, parent in enumerate(self.parents):
            if parent >= 0:
                seen[i] = seen[parent]
            seen[i, i] = True
        return seen


def build(prompts: Sequence[list[int]], scored: Sequence[list[int]]) -> Tree:
    """The tree of the options of one request; equal beginnings stand there once, the last token of each not at all."""
    trunk = _common(prompts)
    nodes: list[int] = []
    parents: list[int] = []
    depths: list[int] = []
    reads: list[list[int]] = []
    found: dict[tuple[int, int], int] = {}
    for prompt, tail in zip(prompts, scored, strict=True):
        at, read = -1, []
        rest = prompt[len(trunk) :] + tail
        first = len(prompt) - len(trunk)
        for step, token in enumerate(rest):
            if step >= first:
                read.append(at)
            if step == len(rest) - 1:
                break
            if (at, token) not in found:
                found[at, token] = len(nodes)
                nodes.append(token)
                parents.append(at)
                depths.append(step)
            at = found[at, token]
        reads.append(read)
    return Tree(trunk, nodes, parents, depths, reads, [list(tail) for tail in scored])


def _common(prompts: Sequence[list[int]]) -> list[int]:
    """The longest common beginning; at least one token stays in the trunk, which is what the first read needs."""
    first = prompts[0]
    length = min(map(len, prompts))
    if all(p == first for p in prompts):
        return first
    for i in range(length):
        if any(p[i] != first[i] for p in prompts):
            return first[:i]
    return first[:length]
