"""The benchmarks, one short file each. A changed prompt is a new version."""

from __future__ import annotations

from tuneloop.errors import UsageError, nearest
from tuneloop.tasks import arc, hellaswag, mmlu, truthfulqa
from tuneloop.tasks.base import Item, Task, build_items, load_docs, prompt_hash

__all__ = ["TASKS", "Item", "Task", "build_items", "find", "load_docs", "prompt_hash"]

TASKS: dict[str, Task] = {t.name: t for module in (arc, hellaswag, mmlu, truthfulqa) for t in module.TASKS}


def find(name: str) -> Task:
    if name not in TASKS:
        raise UsageError(120, f"unknown task '{name}'", where="eval.tasks", cure=nearest(name, TASKS))
    return TASKS[name]
