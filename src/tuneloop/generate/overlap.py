"""Keeps rows out that repeat a benchmark: teachers recite them. The finding is that of the data stage's index."""

from __future__ import annotations

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
    """The questions of a task or preset, else of a file or of all files of a folder; a broken line is DataError 371."""
    from tuneloop.tasks import PRESETS, TASKS, build_items, find, read_docs

    if (tasks := _tasks(name)) is not None:
        yield from (item.question for task in tasks for item in build_items(find(task)).items)
        return
    path = Path(name).expanduser()
    files = [file for file in (sorted(path.rglob("*")) if path.is_dir() else [path]) if _is_lines(file)]
    if not files:
        raise UsageError(
            174, f"'{name}' is neither a task nor a file or folder of JSON Lines", where="generate.decontaminate",
            expected=nearest(name, [*TASKS, *PRESETS]), cure="name tasks, or .jsonl or .jsonl.gz files of test rows",
        )  # fmt: skip
    for row in (row for file in files for row in read_docs(file)):
        found = next((row[field] for field in FIELDS if isinstance(row.get(field), str)), None)
        if found:
            yield found


def _tasks(name: str) -> list[str] | None:
    """The names of the tasks that a name stands for; None where it is no task's."""
    from tuneloop.tasks import PRESETS, find

    if name in PRESETS:
        return [task for task, _ in PRESETS[name]]
    try:
        find(name)
    except UsageError as error:
        if error.number != 120:  # a task's file that breaks
            raise
        return None
    return [name]


def _is_lines(path: Path) -> bool:
    return path.is_file() and path.name.endswith((".jsonl", ".jsonl.gz"))
