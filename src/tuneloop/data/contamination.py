"""Rows that repeat the benchmarks on which the tune will be reported: training rows go, test rows never."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.config import TaskSpec
from tuneloop.data import formats, read
from tuneloop.data.asked import asked_and_answered, core
from tuneloop.data.duplicates import Decisions
from tuneloop.data.keys import Keys
from tuneloop.data.rows import Refused
from tuneloop.data.sources import locate, parts
from tuneloop.errors import PrerequisiteError, UsageError, nearest
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.tasks import PRESETS, TASKS, build_items, find, foreign

SHOWN = 200  # finds whose two texts stand in the profile


def specs(named: list[str] | None, reported: Iterable[TaskSpec]) -> list[TaskSpec | Path]:
    """What is named in `data.decontaminate`, else the tasks that will be reported; a preset is its tasks."""
    if named is None:
        return [one for spec in reported for one in _expanded(spec)]
    out: list[TaskSpec | Path] = []
    for name in named:
        found = _expanded(TaskSpec.model_validate(name))
        if all(_known(spec.task) for spec in found):
            out += found
        elif Path(name).expanduser().exists():
            out.append(Path(name).expanduser())
        else:
            raise UsageError(
                137, f"'{name}' is neither a task nor a file", where="data.decontaminate",
                expected=nearest(name, [*TASKS, *PRESETS]), cure="name tasks or files; [] for none",
            )  # fmt: skip
    return out


def _expanded(spec: TaskSpec) -> list[TaskSpec]:
    return [TaskSpec(task=task) for task, _ in PRESETS[spec.task]] if spec.task in PRESETS else [spec]


def _known(task: str) -> bool:
    if foreign(task):
        return True
    try:
        find(task)
    except UsageError:
        return False
    return True


def build_index(wanted: list[TaskSpec | Path]) -> tuple[OverlapIndex | None, list[str]]:
    """The index over the questions of all, and the names of those whose rows cannot be read here.

    A question that a benchmark asks more than once ("Which statement is correct?") is taken with its right answer.
    """
    names: list[str] = []
    texts: list[str] = []
    missing: list[str] = []
    for one in wanted:
        name = one.name if isinstance(one, Path) else one.name or one.task
        if name in names or name in missing:
            continue
        if isinstance(one, TaskSpec) and foreign(one.task):
            missing.append(name)
            continue
        try:
            found = _file_texts(one) if isinstance(one, Path) else _task_texts(one)
        except PrerequisiteError:
            missing.append(name)
            continue
        names += [name] * len(found)
        texts += found
    return (OverlapIndex(names, texts) if texts else None), missing


def _task_texts(spec: TaskSpec) -> list[str]:
    items = build_items(find(spec.task), data=spec.data).items
    repeated = Counter(item.question.strip() for item in items)
    out = []
    for item in items:
        answers = item.texts or item.options
        right = answers[item.gold[0]] if item.gold and answers else ""
        once = repeated[item.question.strip()] == 1
        out.append(item.question if once else f"{item.question}\n{right}")
    return out


def _file_texts(path: Path) -> list[str]:
    """The prompts of any file or folder that `source` could name; rows that cannot be read hold nothing to repeat."""
    texts: list[str] = []
    for part in parts(str(path), locate(str(path))):
        assert part.path is not None
        raws = [raw.row for raw in read.read(part.path) if raw.problem is None]
        plan = formats.plan(raws[:200], None, {}, part.uri)
        for row in raws:
            try:
                example, _ = formats.convert(row, plan)
            except Refused:
                continue
            texts.append(core(example, asked_and_answered(example)[0]))
    return texts


def apply(keys: Keys, split: NDArray[np.uint8], test: int, decided: Decisions) -> NDArray[np.int64]:
    """Refuses the training and validation rows with a find; returns all rows with one, test rows included."""
    found = np.flatnonzero((keys["hit"] >= 0) & keys.ok)
    gone = found[(split[found] != test) & (decided.code[found] == 0)]
    decided.refuse(gone, "contaminated", -1, keys["hit_share"][gone])
    return found


def table(keys: Keys, index: OverlapIndex | None, missing: list[str], found: Any, decided: Decisions) -> dict[str, Any]:
    """For the profile: counts for each benchmark (items, items repeated, rows found, rows left out)."""
    if index is None:
        return {"benchmarks": [], "not_checked": missing}
    names = np.array(index.names)
    # An item that stands in two benchmarks is repeated in both.
    hit = index.alike[keys["hit"][found]]
    gone = decided.code[found] != 0
    rows = []
    for name in dict.fromkeys(index.names):
        texts = index.alike[names == name]
        own = np.isin(hit, texts)
        items, repeated = len(texts), int(np.isin(texts, hit).sum())
        rows.append(
            {
                "benchmark": name, "items": items, "items_repeated": repeated, "rows": int(own.sum()),
                "rows_out": int((own & gone).sum()), "share": round(repeated / items, 5),
            }
        )  # fmt: skip
    return {"benchmarks": rows, "not_checked": missing}
