"""Duplicates, groups and splits: the same prompt never stands on both sides, and a row's side is fixed by its hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tuneloop.data.lineage import RANK, inherit_groups, inherit_splits
from tuneloop.data.rows import Refused
from tuneloop.records import Example
from tuneloop.text import duplicate_key, group_key, key, share


def prompt_and_answer(example: Example) -> tuple[str, str]:
    """What is asked and what is answered; plain text is both in one, a pair answers with both sides."""
    if example.chosen is not None:
        asked = _spoken(example.messages) if example.messages is not None else example.prompt or ""
        return asked, "\n\n".join(_spoken(side) for side in (example.chosen, example.rejected))
    if example.messages is not None:
        turns = [f"{m['role']}: {m['content']}" for m in example.messages[:-1]]
        only = example.messages[0]["content"] if len(example.messages) == 2 else "\n".join(turns)
        return only, str(example.messages[-1]["content"])
    if example.text is not None:
        return example.text, ""
    return example.prompt or "", example.completion or ""


def _spoken(turns: list[dict[str, Any]] | str | None) -> str:
    if isinstance(turns, list):
        only = turns[0]["content"] if len(turns) == 1 else "\n".join(f"{m['role']}: {m['content']}" for m in turns)
        return str(only)
    return turns or ""


def deduplicate(
    rows: list[Example], hints: list[str | None], *, keep_tests: bool = True
) -> tuple[list[int], list[tuple[int, Refused]]]:
    """Indices to keep, and the refused with the id of the row kept. A test split that was given stays whole."""
    first: dict[tuple[str | None, str], str] = {}
    kept: list[int] = []
    refused: list[tuple[int, Refused]] = []
    for index, (example, hint) in enumerate(zip(rows, hints, strict=True)):
        place = (hint, duplicate_key(*prompt_and_answer(example)) + str(example.desirable))
        if place not in first:
            first[place] = example.id
            kept.append(index)
        elif hint == "test" and keep_tests:
            example.flags.append("duplicate")
            kept.append(index)
        else:
            refused.append((index, Refused("duplicate", field="id", value=first[place], cure="none needed")))
    return kept, refused


class _Union:
    """Connected components; the representative is the smallest key, so that order does not matter."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        self.parent.setdefault(name, name)
        root = name
        while self.parent[root] != root:
            root = self.parent[root]
        while self.parent[name] != root:
            self.parent[name], name = root, self.parent[name]
        return root

    def join(self, one: str, two: str) -> None:
        low, high = sorted((self.find(one), self.find(two)))
        self.parent[high] = low


def assign_groups(rows: Iterable[Example], columns: Iterable[str | None]) -> None:
    """Sets `group`: rows with the same prompt, or the same value of the group column, directly or through others.

    A generated row joins the group of its ancestors.
    """
    union, keys = _Union(), []
    held = list(rows)
    for example, column in zip(held, columns, strict=True):
        own = group_key(prompt_and_answer(example)[0])
        keys.append(own)
        union.find(own)
        if column:
            union.join(own, key("column", column))
    for example, own in zip(held, keys, strict=True):
        example.group = union.find(own)
    inherit_groups(held)


def assign_splits(
    rows: list[Example], hints: list[str | None], *, test: float, valid: float, seed: int
) -> list[tuple[int, Refused]]:
    """Sets `split` and returns the rows to refuse because their group stands in a split of higher rank.

    Hints win. Rows without one, and those of a train file where no file gives that split, are divided by the hash of
    their group; `test` and `valid` are shares of groups. Generated rows stand where their ancestors do.
    """
    has_test, has_valid = "test" in hints, "valid" in hints
    test_share = 0.0 if has_test else test
    valid_share = 0.0 if has_valid else valid
    for example, hint in zip(rows, hints, strict=True):
        side = share(example.group, seed)
        if hint in ("test", "valid"):
            example.split = hint
        elif side < test_share:
            example.split = "test"
        else:
            example.split = "valid" if side < test_share + valid_share else "train"
    inherit_splits(rows)
    best: dict[str, str] = {}
    for example in rows:
        best[example.group] = min(best.get(example.group, "train"), example.split, key=RANK.__getitem__)
    owner: dict[tuple[str, str], str] = {}
    for example in rows:
        owner.setdefault((example.group, example.split), example.id)
    refused = []
    for index, example in enumerate(rows):
        rank = best[example.group]
        if rank != example.split:
            other = owner[(example.group, rank)]
            refused.append((index, Refused(f"in_{rank}", field="group", value=other, cure="none needed")))
    return refused
