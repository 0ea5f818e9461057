"""Documents of a task, from a file, a folder of files, a function, or the hub, and the rows that they become."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from tuneloop.console import say
from tuneloop.errors import DataError, PrerequisiteError, TuneloopError
from tuneloop.tasks.base import Doc, Item, Source, Task

SUFFIXES = (".jsonl.gz", ".jsonl")


def load_docs(task: Task, split: str, data: str | None = None) -> tuple[list[Doc], str]:
    """The documents of a split and where they came from: `data`, else $TUNELOOP_DATA, else the hub."""
    if not isinstance(task.rows, Source):
        return _called(task, split), f"{task.name} rows('{split}')"
    for root in (data, os.environ.get("TUNELOOP_DATA")):
        found = _local(task.rows, split, root) if root else None
        if found is not None:
            return read_docs(found), str(found)
        if data:
            names = ", ".join(task.rows.files.get(split, ()))
            raise DataError(
                370,
                f"no '{split}' rows of {task.name}",
                where=data,
                expected=f"one of {names} with .jsonl or .jsonl.gz",
            )
    return _hub(task, task.rows, split)


def _called(task: Task, split: str) -> list[Doc]:
    assert not isinstance(task.rows, Source)
    try:
        found: list[Doc] = list(task.rows(split))
    except TuneloopError:
        raise
    except Exception as error:  # the user's own code: any error is theirs to see, without our traceback
        raise DataError(
            370, f"{task.name}: rows('{split}') failed: {type(error).__name__}: {error}", where="the task's file",
            expected="a list of rows",
        ) from error  # fmt: skip
    if not found:
        raise DataError(370, f"no '{split}' rows of {task.name}", where="the task's file", expected="rows('...')")
    return found


def _local(source: Source, split: str, root: str) -> Path | None:
    for name in source.files.get(split, ()):
        for suffix in SUFFIXES:
            path = Path(root) / f"{name}{suffix}"
            if path.is_file():
                return path
    return None


def read_docs(path: Path | str) -> list[Doc]:
    """Rows of a JSON Lines file (also .gz); a broken line is an error that names it."""
    docs = []
    path = Path(path)
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    docs.append(_parsed(line, f"{path}:{number}"))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(371, f"cannot read the file: {error}", where=str(path), expected="UTF-8 JSON Lines") from error
    return docs


def _opened(path: Path) -> IO[str]:
    return gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else open(path, encoding="utf-8")


def _parsed(line: str, where: str) -> Doc:
    try:
        doc = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(371, f"broken JSON: {getattr(error, 'msg', error)}", where=where) from error
    if not isinstance(doc, dict):
        raise DataError(371, f"a {type(doc).__name__} instead of an object", where=where)
    return doc


def _hub(task: Task, source: Source, split: str) -> tuple[list[Doc], str]:
    import datasets

    name, config = source.hub
    say(f"fetching {name} ({split})")
    try:
        table = datasets.load_dataset(name, config, split=split)
    except (OSError, ValueError, RuntimeError) as error:
        raise PrerequisiteError(
            260, f"cannot fetch {name} ({type(error).__name__})", where=f"task {task.name}, split {split}",
            cure="go online, or set TUNELOOP_DATA to a folder that holds "
            + " or ".join(f"{name}.jsonl.gz" for name in source.files.get(split, ())),
        ) from error  # fmt: skip
    return [dict(doc) for doc in table], f"{name}/{config or ''}"


def to_items(task: Task, docs: Sequence[Doc], origin: str) -> list[Item]:
    """The row of every document. DataError 372 or 373 names the file and line of one that does not fit."""
    return [_item(task, doc, number, origin) for number, doc in enumerate(docs)]


def _item(task: Task, doc: Doc, number: int, origin: str) -> Item:
    try:
        found = task.item(doc)
    except Exception as error:  # a task may be a user's own code
        what = f"no field {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise DataError(
            372, f"this row does not fit {task.name}: {what}", where=_where(origin, number),
            expected="the fields of the hub's copy, or of the cleaned copy" if isinstance(task.rows, Source)
            else "rows that the task's item() takes",
        ) from error  # fmt: skip
    if not isinstance(found, Item) or not _typed(found):
        what = "an Item of other types" if isinstance(found, Item) else f"a {type(found).__name__}"
        raise DataError(
            372, f"this row does not fit {task.name}: item() returned {what}", where=_where(origin, number),
            expected="a tuneloop.tasks.Item: prompt a text, options a list of texts, gold a list of their indices",
        )  # fmt: skip
    found.id = found.id or f"{number}"
    found.question = found.question or found.prompt
    found.category, found.group = str(found.category), str(found.group)
    if not found.options or not found.gold or not 0 <= min(found.gold) <= max(found.gold) < len(found.options):
        raise DataError(373, "a row without options or without a right one", where=_where(origin, number))
    return found


def _typed(item: Item) -> bool:
    lists = isinstance(item.options, list) and isinstance(item.gold, list) and isinstance(item.prompt, str)
    return lists and all(isinstance(o, str) for o in item.options) and all(isinstance(g, int) for g in item.gold)


def _where(origin: str, number: int) -> str:
    """File and line of document `number` (from 0), blank lines counted; its number where there is no file."""
    path = Path(origin)
    if not path.is_file():
        return f"{origin}, row {number + 1}"
    with _opened(path) as file:
        full = [at for at, line in enumerate(file, start=1) if line.strip()]
    return f"{origin}:{full[number]}"
