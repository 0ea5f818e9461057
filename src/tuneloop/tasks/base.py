"""What a benchmark is: rows from somewhere, a prompt, options, and which of them are right."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.console import say
from tuneloop.errors import DataError, PrerequisiteError
from tuneloop.store import sha256_text

Doc = dict[str, Any]
SUFFIXES = (".jsonl.gz", ".jsonl")


@dataclass
class Item:
    """One row to score: `options` are continuations of `prompt`, `gold` the indices of the right ones."""

    prompt: str
    options: list[str]
    gold: list[int]
    question: str
    category: str = ""
    group: str = ""
    id: str = ""
    texts: list[str] = field(default_factory=list)  # what lettered options stand for


@dataclass(frozen=True)
class Source:
    """`files[split]`: names without suffix below a data folder, first found wins. `hub`: (repository, config)."""

    files: dict[str, tuple[str, ...]]
    hub: tuple[str, str | None]


@dataclass(frozen=True)
class Task:
    """A benchmark. `metric` is 'acc' or 'mc2'; `normalised` adds accuracy by characters, as lm-eval's acc_norm."""

    name: str
    version: str
    source: Source
    item: Callable[[Doc], Item]
    metric: str
    scored: str
    shots_from: str | None = None
    normalised: bool = False
    by_category: bool = False
    pinned: bool = False  # shots are part of the prompt and cannot be asked for
    head: Callable[[Item], str] | None = None


def load_docs(task: Task, split: str, data: str | None = None, *, required: bool = True) -> tuple[list[Doc], str]:
    """The documents of a split and where they came from: `data`, else $TUNELOOP_DATA, else the hub."""
    for root in (data, os.environ.get("TUNELOOP_DATA")):
        found = _local(task, split, root) if root else None
        if found is not None:
            return _read(found), str(found)
        if data:
            break
    if data:
        if not required:
            return [], data
        names = ", ".join(task.source.files.get(split, ()))
        raise DataError(
            370, f"no '{split}' rows of {task.name}", where=data, expected=f"one of {names} with .jsonl or .jsonl.gz"
        )
    return _hub(task, split, required)


def _local(task: Task, split: str, root: str) -> Path | None:
    for name in task.source.files.get(split, ()):
        for suffix in SUFFIXES:
            path = Path(root) / f"{name}{suffix}"
            if path.is_file():
                return path
    return None


def _read(path: Path) -> list[Doc]:
    docs = []
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                docs.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise DataError(371, f"broken JSON: {error.msg}", where=f"{path}:{number}") from error
    return docs


def _hub(task: Task, split: str, required: bool) -> tuple[list[Doc], str]:
    import datasets

    name, config = task.source.hub
    try:
        table = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        if not required:
            return [], name
        raise PrerequisiteError(
            260,
            f"cannot fetch {name} ({type(error).__name__})",
            where=f"task {task.name}, split {split}",
            cure="go online, or set TUNELOOP_DATA to a folder that holds "
            + " or ".join(f"{name}.jsonl.gz" for name in task.source.files[split]),
        ) from error
    return [dict(doc) for doc in table], f"{name}/{config or ''}"


def build_items(task: Task, *, shots: int = 0, data: str | None = None, limit: int | None = None) -> list[Item]:
    """The scored rows with header and shots in place; rows (of one subject, where shots have one) share their shots."""
    docs, origin = load_docs(task, task.scored, data)
    say(f"{task.name}: {len(docs):,} rows from {origin}")
    items = [_item(task, doc, number, origin) for number, doc in enumerate(docs, start=1)]
    items = items[:limit] if limit and not task.by_category else _first_of_each(items, limit)
    block = _shot_blocks(task, shots, data)
    for found in items:
        head = task.head(found) if task.head else ""
        found.prompt = head + block(found) + found.prompt
    return items


def _first_of_each(items: list[Item], limit: int | None) -> list[Item]:
    """A limit taken evenly over the subjects, in order."""
    if not limit or limit >= len(items):
        return items
    by: dict[str, list[int]] = {}
    for index, found in enumerate(items):
        by.setdefault(found.category, []).append(index)
    chosen: list[int] = []
    for depth in range(max(map(len, by.values()))):
        chosen += [rows[depth] for rows in by.values() if depth < len(rows)]
        if len(chosen) >= limit:
            break
    return [items[i] for i in sorted(chosen[:limit])]


def _item(task: Task, doc: Doc, number: int, origin: str) -> Item:
    try:
        found = task.item(doc)
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        raise DataError(
            372,
            f"this row does not fit {task.name}: {type(error).__name__} {error}",
            where=f"{origin}:{number}",
            expected="the fields of the hub's copy, or of the cleaned copy",
        ) from error
    found.id = found.id or f"{number - 1}"
    if not found.options or not found.gold or max(found.gold) >= len(found.options):
        raise DataError(373, "a row without options or without a right one", where=f"{origin}:{number}")
    return found


def _shot_blocks(task: Task, shots: int, data: str | None) -> Callable[[Item], str]:
    if task.pinned or not shots or task.shots_from is None:
        return lambda _: ""
    docs, origin = load_docs(task, task.shots_from, data)
    pool = [_item(task, doc, number, origin) for number, doc in enumerate(docs, start=1)]

    def block(found: Item) -> str:
        own = [p for p in pool if p.category == found.category] if task.by_category else pool
        if len(own) < shots:
            raise DataError(374, f"{task.name}: {shots} shots asked, {len(own)} rows to take them from", where=origin)
        return "".join(f"{p.prompt} {p.options[p.gold[0]]}\n\n" for p in own[:shots])

    return block


def prompt_hash(prompt: str) -> str:
    return sha256_text(prompt)[:16]
