"""The accepted rows, and what decides whether another may join them; in the order of candidates, never of arrival."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneloop.config.generate import FilterConfig
from tuneloop.generate.candidate import Dropped, question_of
from tuneloop.generate.near import NearDuplicates
from tuneloop.generate.rules import final_answer
from tuneloop.neighbours.similar import Similar
from tuneloop.records import Example
from tuneloop.text import duplicate_key


class Pool:
    """`rows` were accepted; seeds and they are what a new row is held against. `admit` raises Dropped."""

    def __init__(self, config: FilterConfig, seeds: Sequence[Example], benchmarks: Any, *, similar: bool) -> None:
        self.config, self.rows, self.benchmarks = config, list[Example](), benchmarks
        self._ids = {seed.id for seed in seeds}
        self._exact = {duplicate_key(question_of(seed), final_answer(seed)): seed.id for seed in seeds}
        self._similar = Similar(config.similarity) if similar and config.similarity is not None else None
        self._names: list[str] = []
        self._near = NearDuplicates(config.near_duplicate) if config.near_duplicate is not None else None
        for seed in seeds:
            self._note(seed)

    def admit(self, row: Example) -> None:
        """Adds the row, or raises Dropped: duplicate, similar, near_duplicate, contaminated."""
        prompt, answer = question_of(row), final_answer(row)
        if twin := self._exact.get(duplicate_key(prompt, answer)):
            raise Dropped("duplicate", twin)
        if row.id in self._ids:
            raise Dropped("duplicate", row.id)
        if self._similar is not None and (found := self._similar.find(prompt)):
            raise Dropped("similar", f"{found[1]:.2f} to {self._names[found[0]]}")
        if self._near is not None and (near := self._near.find(row)):
            raise Dropped("near_duplicate", f"{near[1]:.2f} to {near[0]}")
        if self.benchmarks is not None and (overlap := self.benchmarks(row)):
            raise Dropped("contaminated", overlap)
        self._exact[duplicate_key(prompt, answer)] = row.id
        self._ids.add(row.id)
        self._note(row)
        self.rows.append(row)

    def _note(self, row: Example) -> None:
        if self._similar is not None:
            self._similar.add(question_of(row))
            self._names.append(row.id)
        if self._near is not None:
            self._near.add(row)


class Snapshot(Sequence[Example]):
    """The first `length` rows of a list that only grows."""

    def __init__(self, rows: list[Example], length: int) -> None:
        self._rows, self._length = rows, length

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return self._rows[: self._length][index]
        return self._rows[range(self._length)[index]]
