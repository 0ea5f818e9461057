"""A task from a Python file: `TASK = Task(...)`, or `TASKS = [...]`."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from tuneloop.errors import UsageError
from tuneloop.tasks.base import Task


def load_file(path: str) -> Task:
    """The task that `path` defines; `path.py#name` picks one of several. UsageError 128 when the file breaks."""
    file, _, name = path.partition("#")
    where = Path(file)
    if not where.is_file():
        raise UsageError(128, f"no such task file '{file}'", where="eval.tasks", cure="check the path")
    found = _tasks(where)
    chosen = [task for task in found if not name or task.name == name]
    if len(chosen) != 1:
        names = ", ".join(task.name for task in found)
        raise UsageError(
            128, f"{len(chosen)} tasks fit", where=file, expected=f"one of: {names}", cure=f"write {file}#NAME"
        )
    return chosen[0]


def _tasks(path: Path) -> list[Task]:
    spec = importlib.util.spec_from_file_location(f"tuneloop_task_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # the user's own code: any error is theirs to see, with its line
        raise UsageError(
            128, f"the task file breaks: {type(error).__name__}: {error}", where=f"{path}:{_line(error, path)}",
            cure="run it with python to see more",
        ) from error  # fmt: skip
    single = getattr(module, "TASK", None)
    found = getattr(module, "TASKS", [single] if single is not None else [])
    if not found or not all(isinstance(task, Task) for task in found):
        raise UsageError(
            128, "the file defines no task", where=str(path), expected="TASK = tuneloop.tasks.Task(...)",
            cure="see docs/evaluation.md",
        )  # fmt: skip
    return list(found)


def _line(error: BaseException, path: Path) -> int:
    """The last line of the user's file that the error passed through."""
    line, trace = getattr(error, "lineno", None) or 1, error.__traceback__
    while trace is not None:
        if Path(trace.tb_frame.f_code.co_filename) == path.absolute():
            line = trace.tb_lineno
        trace = trace.tb_next
    return int(line)
