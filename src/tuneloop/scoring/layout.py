"""One forward pass: trees of several clusters laid end to end in a single row of tokens, without padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tuneloop.scoring.attend import Group, Layout, Span
from tuneloop.scoring.share import Cluster
from tuneloop.scoring.tree import Tree

WASTE = 1.15  # padded cells of attention per real one
SMALL = 4096  # cells below which padding costs less than another call
MASK_CELLS = 1 << 22
AGAIN = 5  # what gathering a key and value once more costs, in cells of attention


@dataclass(slots=True)
class Part:
    """Some trees of a cluster. `fresh`: its shared beginning is computed in this pass; `keep`: a later one needs it."""

    cluster: Cluster
    trees: list[Tree]
    fresh: bool = True
    keep: bool = False

    @property
    def size(self) -> int:
        return sum(t.size - self.cluster.length for t in self.trees) + (self.cluster.length if self.fresh else 0)


@dataclass(slots=True)
class Pass:
    """`ids` and `places` (T,); `reads` and `targets`: for every scored token of every tree, in order, the row of the
    pass that predicts it and the token itself."""

    ids: np.ndarray
    places: np.ndarray
    layout: Layout
    reads: np.ndarray
    targets: np.ndarray


@dataclass(slots=True)
class _Row:
    """Where a tree stands: `trunk` without the shared beginning, then `nodes`."""

    tree: Tree
    trunk: int
    length: int
    nodes: int


@dataclass(slots=True)
class _Branch:
    """Nodes of a row's tree that see its trunk and one another only."""

    row: _Row
    nodes: list[int]


def _branches(row: _Row) -> list[_Branch]:
    """One by one where that spares more than looking at the trunk again costs, else together."""
    apart = row.tree.branches()
    together = [n for branch in apart for n in branch]
    spared = len(together) ** 2 - sum(len(branch) ** 2 for branch in apart)
    if spared > AGAIN * (len(apart) - 1) * row.length:
        return [_Branch(row, branch) for branch in apart]
    return [_Branch(row, together)] if together else []


def lay(parts: Sequence[Part], device: Any, dtype: torch.dtype, kept: dict[int, dict[int, Any]]) -> Pass:
    """Ids, positions and attention of one pass; `kept` holds beginnings that later passes need, by cluster."""
    ids: list[int] = []
    places: list[np.ndarray] = []
    rows: list[_Row] = []
    layout = Layout()
    starts: list[tuple[int, int]] = []
    for part in parts:
        length, fresh = part.cluster.length, None
        if length and part.fresh:
            fresh = len(ids)
            ids += part.cluster.prefix
            places.append(np.arange(length))
            starts.append((fresh, length))
        begin, first = len(ids), len(rows)
        for tree in part.trees:
            rows.append(_Row(tree, len(ids), len(tree.trunk) - length, 0))
            ids += tree.trunk[length:]
            places.append(np.arange(length, len(tree.trunk)))
        for row in rows[first:]:
            row.nodes = len(ids)
            ids += row.tree.nodes
            places.append(np.asarray(row.tree.depths, dtype=np.int64) + len(row.tree.trunk))
        if length:
            store = kept.setdefault(id(part.cluster), {})
            layout.spans.append(Span(begin, len(ids), length, fresh, part.keep, store))
    trunks = [(start, length) for start, length in starts] + [(row.trunk, row.length) for row in rows]
    layout.groups = [_causal(found, device) for found in _alike(trunks, lambda t: (t[1], t[1]))]
    sizes: Callable[[_Branch], tuple[int, int]] = lambda branch: (len(branch.nodes), branch.row.length)  # noqa: E731
    branches = [branch for row in rows for branch in _branches(row)]
    layout.groups += [_masked(found, device, dtype) for found in _alike(branches, sizes)]
    return Pass(np.asarray(ids, dtype=np.int64), np.concatenate(places), layout, *_reads(rows))


def _reads(rows: list[_Row]) -> tuple[np.ndarray, np.ndarray]:
    reads, targets = [], []
    for row in rows:
        last = row.trunk + row.length - 1
        for read in row.tree.reads:
            reads += [row.nodes + i if i >= 0 else last for i in read]
        for target in row.tree.targets:
            targets += target
    return np.asarray(reads, dtype=np.int64), np.asarray(targets, dtype=np.int64)


def _alike(found: list[Any], size: Callable[[Any], tuple[int, int]]) -> list[list[Any]]:
    """Groups in which padding to the largest wastes little; (queries, more keys) is what `size` says."""
    groups: list[list[Any]] = []
    queries = keys = real = 0
    for one in sorted(found, key=size):
        q, k = size(one)
        wide, tall, cells = max(queries, q), max(keys, k), real + q * (q + k)
        count = len(groups[-1]) + 1 if groups else 1
        area = count * wide * (wide + tall)
        if groups and area <= max(SMALL, WASTE * cells) and area <= MASK_CELLS:
            groups[-1].append(one)
        else:
            groups.append([one])
            wide, tall, cells = q, k, q * (q + k)
        queries, keys, real = wide, tall, cells
    return groups


def _causal(trunks: list[tuple[int, int]], device: Any) -> Group:
    """Runs of tokens side by side, padded at the end, where causality hides it."""
    width = max(length for _, length in trunks)
    steps = np.arange(width)
    starts, lengths = (np.asarray(x)[:, None] for x in zip(*trunks, strict=True))
    index = starts + np.minimum(steps, lengths - 1)
    return _group(index, index, steps < lengths, None, device)


def _masked(branches: list[_Branch], device: Any, dtype: torch.dtype) -> Group:
    """Nodes over the rest of their trunk and their ancestors."""
    tall, wide = max(b.row.length for b in branches), max(len(b.nodes) for b in branches)
    ask = np.zeros((len(branches), wide), dtype=np.int64)
    see = np.zeros((len(branches), tall + wide), dtype=np.int64)
    real = np.zeros((len(branches), wide), dtype=bool)
    mask = np.full((len(branches), 1, wide, tall + wide), -np.inf, dtype=np.float32)
    for b, branch in enumerate(branches):
        row, n = branch.row, len(branch.nodes)
        ask[b, :n] = see[b, tall : tall + n] = row.nodes + np.asarray(branch.nodes)
        see[b, : row.length] = np.arange(row.trunk, row.trunk + row.length)
        real[b, :n] = True
        mask[b, 0, :, : row.length] = 0
        mask[b, 0, :n, tall : tall + n][row.tree.sees(branch.nodes)] = 0
    return _group(ask, see, real, torch.from_numpy(mask).to(device, dtype), device)


def _group(ask: np.ndarray, see: np.ndarray, real: np.ndarray, mask: torch.Tensor | None, device: Any) -> Group:
    flat = real.reshape(-1)
    at = np.flatnonzero(flat)
    back = ask.reshape(-1)[at]
    ask_t, see_t, at_t, back_t = (torch.from_numpy(x).to(device) for x in (ask, see, at, back))
    return Group(ask_t, see_t, at_t, back_t, mask)
