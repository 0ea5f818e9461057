"""Groups that must not be split apart, and the split of each: fixed by the hash of its oldest prompt.

Rows of one prompt are a node. Nodes are joined where their prompts are near one another, where rows share the value of
the group column or a document, and where a row was made from another. They are looked at in order, rows that a file
puts into test or valid first: a node joins the groups it touches. Where those stand in different splits, it goes
(`bridges_splits`), so what stands already never moves when rows are added.

    P nodes (prompts)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.duplicates import CODES, Decisions, Near
from tuneloop.data.keys import Keys
from tuneloop.neighbours.minhash import mix
from tuneloop.records import SPLITS

TRAIN, VALID, TESTED, NONE = SPLITS.index("train"), SPLITS.index("valid"), SPLITS.index("test"), 255
# hint (0 test, 1 valid, 2 neither) -> split
OF_HINT = {0: TESTED, 1: VALID}
STRICT = {TESTED: 0, VALID: 1, TRAIN: 2}


@dataclass(frozen=True)
class Shares:
    """Of the groups: [0, test) is the test split, [test, test + valid) the valid split; `frozen`: no new test rows."""

    test: float
    valid: float
    seed: int
    frozen: bool = False

    def split(self, groups: NDArray[np.uint64]) -> NDArray[np.uint8]:
        side = mix(groups ^ mix(np.full(len(groups), self.seed + 1, np.uint64))).astype(np.float64) / 2**64
        out = np.full(len(groups), TRAIN, np.uint8)
        out[side < self.test + self.valid] = VALID
        out[side < self.test] = TRAIN if self.frozen else TESTED
        return out


class Groups:
    """`group` [N] (the prompt key of the oldest member) and `split` [N] of every row that is left."""

    def __init__(self, keys: Keys, near: Near, hints: NDArray[np.uint8], decided: Decisions, shares: Shares) -> None:
        self.keys, self.hints, self.decided = keys, hints, decided
        self.rows = np.flatnonzero(keys.ok & (decided.code == 0))
        self._make_nodes()
        self.parent = np.arange(len(self.prompts), dtype=np.int32)
        self.ancestors: dict[int, set[int]] = {}
        hinted = np.array([OF_HINT.get(h, NONE) for h in range(3)], np.uint8)
        self.fixed = hinted[self.hint]  # the split that a file gives, else NONE
        self.side = np.where(self.fixed == NONE, shares.split(self.prompts), self.fixed).astype(np.uint8)
        self.refused = np.zeros(len(self.prompts), np.uint8)  # index into CODES
        self._walk(near)
        self._children()
        self._settle()

    def _make_nodes(self) -> None:
        """Nodes in the order in which they are looked at: test first, then valid, then as they were read."""
        prompt = self.keys["prompt"][self.rows]
        prompts, first, inverse = np.unique(prompt, return_index=True, return_inverse=True)
        hint = np.full(len(prompts), 2, np.uint8)
        np.minimum.at(hint, inverse, self.hints[self.rows])
        # What was made comes after what it was made from, wherever it was read.
        made = np.ones(len(prompts), bool)
        made[inverse[self.keys["made"][self.rows] == -2]] = False
        order = np.lexsort((first, hint, made))
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        self.prompts, self.hint, self.made = prompts[order], hint[order], made[order]
        self.sorted_prompts, self.place = prompts, place
        self.flagged = np.zeros(self.keys.count, bool)  # test rows that repeat a benchmark
        self.node = np.full(self.keys.count, -1, np.int32)
        self.node[self.rows] = place[inverse]

    def _node_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Also of a row that is gone, where its prompt is still there."""
        wanted = self.keys["prompt"][rows]
        at = np.minimum(np.searchsorted(self.sorted_prompts, wanted), max(0, len(self.sorted_prompts) - 1))
        found: NDArray[np.int64] = np.where(self.sorted_prompts[at] == wanted, self.place[at], -1)
        return found

    def _find(self, node: int) -> int:
        root = node
        while self.parent[root] != root:
            root = int(self.parent[root])
        while self.parent[node] != root:
            self.parent[node], node = root, int(self.parent[node])
        return root

    def _walk(self, near: Near) -> None:
        """Joins every node that touches another, in order."""
        touches: dict[int, set[int]] = {}
        if not len(self.prompts):
            return
        one, two = self._node_of(near.earlier), self._node_of(near.later)
        there = (one >= 0) & (two >= 0) & (one != two)
        for low, high in zip(np.minimum(one, two)[there].tolist(), np.maximum(one, two)[there].tolist(), strict=True):
            touches.setdefault(high, set()).add(low)
        columns = self._columns()
        anchors: dict[int, int] = {}
        self.ancestors = self._roots()
        for node in sorted({*touches, *columns, *self.ancestors}):
            others = {self._find(n) for n in touches.get(node, ()) if not self.refused[n]}
            others |= {self._find(anchors[key]) for key in columns.get(node, ()) if key in anchors}
            self._place(node, others)
            if not self.refused[node]:
                for key in columns.get(node, ()):
                    anchors.setdefault(key, node)

    def _columns(self) -> dict[int, set[int]]:
        """node -> values of the group column of its rows, where another node has one of them too."""
        link = self.keys["link"][self.rows]
        values, counts = np.unique(link, return_counts=True)
        held = self.rows[np.isin(link, values[(counts > 1) & (values != 0)])]
        out: dict[int, set[int]] = {}
        for row, value in zip(held.tolist(), self.keys["link"][held].tolist(), strict=True):
            out.setdefault(int(self.node[row]), set()).add(value)
        return out

    def _roots(self) -> dict[int, set[int]]:
        """made node -> nodes of the oldest ancestors of its rows that are here."""
        made = [row for row in self.keys.parents if self.node[row] >= 0]
        if not made:
            return {}
        by_id: dict[int, int] = {}
        for row in self.rows[::-1].tolist():
            by_id[int(self.keys["id"][row])] = row
        out: dict[int, set[int]] = {}
        for row in made:
            seen, waiting = {int(self.keys["id"][row])}, list(self.keys.parents[row])
            while waiting:
                if (name := waiting.pop()) in seen:
                    continue
                seen.add(name)
                parent = by_id.get(name)
                if parent is not None and self.keys.parents.get(parent):
                    waiting += self.keys.parents[parent]
                elif parent is not None and self.node[parent] != self.node[row]:
                    out.setdefault(int(self.node[row]), set()).add(int(self.node[parent]))
        return out

    def _place(self, node: int, others: set[int]) -> None:
        """Joins the groups of `others`, or refuses the node where it would stand in two splits."""
        forced = self._forced(node, others)
        sides = {int(self.side[o]) for o in others}
        own = int(self.fixed[node]) if self.fixed[node] != NONE else forced
        wrong = sides - {own} if own != NONE else sides if len(sides) > 1 else set()
        explicit = {int(self.fixed[o]) for o in others} - {NONE}
        if own == NONE and explicit:
            wrong |= explicit  # a split that a file gives takes no other rows
        if wrong and self.fixed[node] != TESTED:
            given = [side for side in wrong if side in explicit]
            name = f"in_{SPLITS[min(given, key=STRICT.__getitem__)]}" if given else "bridges_splits"
            self.refused[node] = CODES.index(name)
            return
        same = {o for o in others if int(self.side[o]) == (own if own != NONE else int(self.side[o]))}
        root = min({*same, node})
        if forced != NONE and self.fixed[node] == NONE:
            self.side[node] = forced
        for other in same:
            self.parent[other] = root
        self.parent[node] = root
        if root != node:
            self.side[node] = self.side[root]

    def _forced(self, node: int, others: set[int]) -> int:
        """The split that a made node has from its ancestors: the strictest; it joins their group where there is one."""
        ancestors = {self._find(a) for a in self.ancestors.get(node, ()) if not self.refused[a]}
        if not ancestors:
            return NONE
        if len(ancestors) == 1:
            others |= ancestors
        return min((int(self.side[a]) for a in ancestors), key=STRICT.__getitem__)

    def _children(self) -> None:
        """Made rows whose ancestors are not here stand where they were when they were made."""
        noted = self.keys["made"][self.rows]
        for row in self.rows[noted >= 0].tolist():
            node = int(self.node[row])
            if node not in self.ancestors and self.made[node] and self._find(node) == node and self.fixed[node] == NONE:
                self.side[node] = self.keys["made"][row]

    def _settle(self) -> None:
        """Fills `group` and `split`, and refuses rows whose node went or stands in a stricter split."""
        count = len(self.prompts)
        roots = np.fromiter((self._find(n) for n in range(count)), np.int64, count) if count else np.zeros(0, np.int64)
        node = self.node[self.rows]
        self.group = np.zeros(self.keys.count, np.uint64)
        self.split = np.full(self.keys.count, NONE, np.uint8)
        self.group[self.rows] = self.prompts[roots[node]]
        self.split[self.rows] = self.side[roots[node]]
        owner = np.full(count, -1, np.int64)
        owner[node[::-1]] = self.rows[::-1]
        gone = self.refused[node] > 0
        self._refuse(self.rows[gone], self.refused[node[gone]], owner[roots[node[gone]]])
        hint = self.hints[self.rows]
        for side, name in ((0, "in_test"), (1, "in_valid")):
            lower = ~gone & (self.hint[node] == side) & (hint > side)
            self.decided.refuse(self.rows[lower], name, owner[node[lower]], 1.0)

    def _refuse(self, rows: Any, codes: Any, others: Any) -> None:
        self.decided.code[rows] = codes
        self.decided.other[rows] = others
        self.decided.value[rows] = 1.0

    def check(self) -> None:
        """No group stands in two splits. Raises AssertionError: this is the promise of the stage."""
        kept = np.flatnonzero(self.keys.ok & (self.decided.code == 0))
        pairs = np.unique(np.stack([self.group[kept], self.split[kept].astype(np.uint64)], axis=1), axis=0)
        groups, counts = np.unique(pairs[:, 0], return_counts=True)
        if (counts > 1).any():
            raise AssertionError(f"group {int(groups[counts > 1][0]):016x} stands in two splits")
