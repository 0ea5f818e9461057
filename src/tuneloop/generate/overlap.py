"""Keeps rows out that repeat a benchmark: teachers recite them. The finding is that of the data stage's index."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from tuneloop.errors import UsageError, nearest
from tuneloop.generate.candidate import question_of
from tuneloop.generate.rules import final_answer
from tuneloop.records import Example

FIELDS = ("question", "prompt", "query", "instruction", "text", "ctx")


def benchmarks(names: list[str]) -> Callable[[Example], str] | None:
    """A function that says what a row repeats ('' for nothing), over tasks by name and JSON lines files."""
    if not names:
        return None
    from tuneloop.neighbours.overlap import OverlapIndex

    owners: list[str] = []
    texts: list[str] = []
    for name in names:
        found = list(_texts(name))
        owners += [name] * len(found)
        texts += found
    index = OverlapIndex(owners, texts)

    def repeats(row: Example) -> str:
        prompt = question_of(row)
        finds = index.search([f"{prompt}\n{final_answer(row)}"], [prompt])
        return f"{owners[finds[0].item]}: {finds[0].rule} {finds[0].share:.2f}" if finds else ""

    return repeats


def _texts(name: str) -> Iterator[str]:
    from tuneloop.tasks import TASKS, build_items, find

    if not Path(name).exists():
        if name not in TASKS:
            raise UsageError(
                174, f"'{name}' is neither a task nor a file", where="generate.decontaminate",
                expected=nearest(name, TASKS), cure="name tasks, or JSON lines files of test rows",
            )  # fmt: skip
        yield from (item.question for item in build_items(find(name)).items)
        return
    path = Path(name)
    files = sorted(p for p in path.rglob("*.jsonl*") if p.is_file()) if path.is_dir() else [path]
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else open(file, encoding="utf-8") as lines:
            for line in lines:
                row = json.loads(line) if line.strip() else {}
                found = next((row[field] for field in FIELDS if isinstance(row.get(field), str)), None)
                if found:
                    yield found
