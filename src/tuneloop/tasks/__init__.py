"""The benchmarks, one short file each. A changed prompt is a new version."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from tuneloop.config import TaskSpec
from tuneloop.errors import UsageError, nearest
from tuneloop.tasks import arc, hellaswag, mmlu, truthfulqa
from tuneloop.tasks.base import Item, Source, Task
from tuneloop.tasks.build import Built, Shots, build_items
from tuneloop.tasks.docs import load_docs, read_docs
from tuneloop.tasks.user import load_file

__all__ = [
    "HARNESS", "PRESETS", "TASKS", "Built", "Item", "Shots", "Source", "Task", "build_items", "find", "foreign",
    "load_docs", "local_files", "read_docs",
]  # fmt: skip

HARNESS = "lm-eval:"  # before the name of a task of lm-eval's
TASKS: dict[str, Task] = {t.name: t for module in (arc, hellaswag, mmlu, truthfulqa) for t in module.TASKS}
# The Open LLM Leaderboard v1 as far as its tasks stand here (it also had Winogrande and GSM8K), with its shots.
PRESETS: dict[str, tuple[tuple[str, int], ...]] = {
    "leaderboard_v1": (("arc_challenge", 25), ("hellaswag", 10), ("mmlu", 5), ("truthfulqa_mc2", 0))
}


def find(name: str) -> Task:
    """A task by its name, a part of MMLU (`mmlu_stem`, `mmlu_astronomy`), or a Python file that defines one."""
    if name in TASKS:
        return TASKS[name]
    if name.partition("#")[0].endswith(".py"):
        return load_file(name)
    for task in TASKS.values():
        part = name.removeprefix(f"{task.name}_")
        only = task.groups.get(part) or tuple(c for group in task.groups.values() for c in group if c == part)
        if part != name and only:
            return replace(task, name=name, only=only, groups={})
    raise UsageError(120, f"unknown task '{name}'", where="eval.tasks", cure=nearest(name, [*TASKS, *PRESETS]))


def foreign(name: str) -> bool:
    """A task that lm-eval knows and keeps the rows of."""
    return name.startswith(HARNESS)


def local_files(spec: TaskSpec) -> dict[str, Path]:
    """What a task is made of on this machine, so that other files are another run: its own file, and its rows'."""
    found: dict[str, Path] = {}
    file = Path(spec.task.removeprefix(HARNESS).partition("#")[0])
    if file.suffix in (".py", ".yaml", ".yml") and file.is_file():
        found[":file"] = file
    if (rows := _rows_folder(spec)) is not None:
        found[""] = rows
    return found


def _rows_folder(spec: TaskSpec) -> Path | None:
    """None where the rows come from the hub or a function."""
    if spec.data:
        return Path(spec.data)
    root = os.environ.get("TUNELOOP_DATA")
    rows = None if foreign(spec.task) else find(spec.task).rows
    if not root or not isinstance(rows, Source):
        return None
    # Tasks keep their files in one folder below the root.
    folders = {Path(root) / Path(name).parent for names in rows.files.values() for name in names}
    return next((folder for folder in sorted(folders) if folder.is_dir()), None)
