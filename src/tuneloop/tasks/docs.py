"""Documents of a task: from a file, a folder of files, a function, or the hub."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tuneloop.console import say
from tuneloop.errors import DataError, PrerequisiteError, TuneloopError
from tuneloop.tasks.base import Doc, Source, Task

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
        found: Sequence[Doc] = task.rows(split)
    except TuneloopError:
        raise
    except Exception as error:  # the user's own code: any error is theirs to see, without our traceback
        raise DataError(
            370, f"{task.name}: rows('{split}') failed: {type(error).__name__}: {error}", where="the task's file",
            expected="a list of rows",
        ) from error  # fmt: skip
    if not found:
        raise DataError(370, f"no '{split}' rows of {task.name}", where="the task's file", expected="rows('...')")
    return list(found)


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
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    docs.append(_parsed(line, f"{path}:{number}"))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise DataError(371, f"cannot read the file: {error}", where=str(path), expected="UTF-8 JSON Lines") from error
    return docs


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
