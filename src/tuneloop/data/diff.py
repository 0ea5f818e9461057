"""Prints rows as they were read and as they are kept, with what cleaning changed in colour."""

from __future__ import annotations

import copy
import difflib
import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from tuneloop.config import DataConfig
from tuneloop.data import formats, sources, stream
from tuneloop.data.clean import RAW_FIELDS, clean, turns_of
from tuneloop.data.containers import spool_stdin
from tuneloop.data.rows import Refused
from tuneloop.records import Example

AROUND = 40  # characters that are shown beside a change


def diff(config: DataConfig, n: int) -> int:
    """The first `n` rows that cleaning changes, on stdout; returns how many there were."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    shown = 0
    for place, before, after, counts in _changed(config):
        console.print(Text(f"{place}: {', '.join(counts)}", style="bold"))
        for one, two in zip(texts(before), texts(after), strict=True):
            if one != two:
                for line in changes(one, two):
                    console.print(Text(line, style={"-": "red", "+": "green"}.get(line[:1], "dim")))
        shown += 1
        if shown == n:
            break
    if not shown:
        console.print("cleaning changes no row")
    return shown


def _changed(config: DataConfig) -> Iterator[tuple[str, Example, Example, Counter[str]]]:
    for number, spec in enumerate(config.sources):
        spooled = spool_stdin() if spec.path == "-" else None
        for part in sources.find(spec, None, spooled).parts():
            planned = stream.plan_part(part, number, spec, None, config)
            for raw in stream.raws(part, planned.whole):
                counts: Counter[str] = Counter()
                try:
                    if raw.problem is not None:
                        continue
                    before, _ = formats.convert(raw.row, planned.plan.plan)
                    after = clean(copy.deepcopy(before), counts, config.clean)
                except (Refused, UnicodeEncodeError):
                    continue
                if counts.pop("rows_changed"):
                    yield f"{part.uri}:{raw.line}", before, after, +counts


def texts(example: Example) -> list[str]:
    raw: list[Any] = [getattr(example, name) for name in RAW_FIELDS]
    return [str(m["content"]) for m in turns_of(example)] + [t for t in raw if isinstance(t, str)]


def changes(before: str, after: str) -> list[str]:
    """'- old' and '+ new' pairs with a little of what stands around; what cannot be seen is written as an escape."""
    out = []
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind == "equal":
            continue
        left, right = before[max(0, i - AROUND) : i], before[j : j + AROUND]
        out += [
            f"- {_seen(left)}[{_seen(before[i:j])}]{_seen(right)}",
            f"+ {_seen(left)}[{_seen(after[k:m])}]{_seen(right)}",
        ]
    return out


def _seen(text: str) -> str:
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text)
