"""Generated rows stand where their ancestors stand: no row of the train split was made from one of the test split."""

from __future__ import annotations

from collections.abc import Sequence

from tuneloop.records import SPLITS, Example

# The stricter split first: a row with one ancestor in test belongs to test.
RANK = {"test": 0, "valid": 1, "train": 2}


def roots(rows: Sequence[Example]) -> dict[int, list[Example]]:
    """index of a generated row -> its oldest ancestors among `rows`; none where they stand in no source."""
    by_id: dict[str, Example] = {}
    for row in rows:
        by_id.setdefault(row.id, row)
    found = {}
    for index, row in enumerate(rows):
        if row.generator is None:
            continue
        oldest: dict[str, Example] = {}
        seen, waiting = {row.id}, list(row.parents)
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            parent = by_id.get(name)
            if parent is not None and parent.generator is not None and parent.parents:
                waiting += parent.parents
            elif parent is not None:
                oldest[name] = parent
        found[index] = list(oldest.values())
    return found


def inherit_groups(rows: Sequence[Example]) -> None:
    """A row with ancestors of one group joins it. One with several (examples in its prompt) keeps its own."""
    for index, ancestors in roots(rows).items():
        groups = {ancestor.group for ancestor in ancestors}
        if len(groups) == 1:
            rows[index].group = groups.pop()


def inherit_splits(rows: Sequence[Example]) -> None:
    """The strictest split of the ancestors; where they are not here, the one they had when the row was made."""
    for index, ancestors in roots(rows).items():
        row = rows[index]
        made_in = (row.generator or {}).get("split")
        if ancestors:
            row.split = min((ancestor.split for ancestor in ancestors), key=RANK.__getitem__)
        elif made_in in SPLITS:
            row.split = str(made_in)
