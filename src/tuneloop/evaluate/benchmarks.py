"""Scores a benchmark: every option's log-likelihood, or generated text, then the task's metric."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tuneloop import metrics, stats
from tuneloop.config import EvalConfig, TaskSpec
from tuneloop.console import say, warn
from tuneloop.errors import DataError, TuneloopError, UsageError
from tuneloop.evaluate.harness import run_harness
from tuneloop.evaluate.rows import QUICK_ROWS, Part, Row, blank, choice_row, score, share_score
from tuneloop.lm import generate, prompt_room
from tuneloop.scoring import Scorer, Served, pair_tokens
from tuneloop.tasks import PRESETS, Item, Shots, Task, build_items, find, foreign
from tuneloop.text import group_key, in_half


def expand(specs: Sequence[TaskSpec]) -> list[TaskSpec]:
    """Presets replaced by their tasks; every name is looked up, so that a typing error ends here.

    A task that is asked for under several numbers of shots is called by its name and shots. UsageError 159 where one
    name would still stand for two.
    """
    found: list[TaskSpec] = []
    for spec in specs:
        if spec.task in PRESETS:
            found += [spec.model_copy(update={"task": task, "shots": shots}) for task, shots in PRESETS[spec.task]]
        else:
            found.append(spec)
    # Two files may define tasks of one name.
    asked = [s.name or (s.task if foreign(s.task) else find(s.task).name) for s in found]
    for i, spec in enumerate(found):
        if asked.count(asked[i]) > 1 and spec.shots is not None:
            found[i] = spec.model_copy(update={"name": f"{asked[i]}:{spec.shots}"})
    names = [spec.name or name for spec, name in zip(found, asked, strict=True)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UsageError(
            159, f"'{twice}' is asked for twice", where="eval.tasks", expected="a name for each",
            cure="leave one out, or give it another `name`",
        )  # fmt: skip
    return found


def run_task(spec: TaskSpec, config: EvalConfig, scorer: Scorer | Served, tokenizer: Any, few_shot: int) -> Part:
    """Rows and scores of one benchmark, of a model in this process or one behind a server (no tokenizer then)."""
    if foreign(spec.task):
        if isinstance(scorer, Served):
            raise UsageError(
                153, "lm-eval's tasks run on a model in this process", where=spec.task,
                cure="load the model here, or use lm-eval's local-completions",
            )  # fmt: skip
        return run_harness(spec, config, scorer, tokenizer, few_shot)
    task = find(spec.task)
    name, part = spec.name or task.name, Part()
    shots, items = _items(task, spec, config, few_shot, part)
    known: dict[str, Any] = {"version": task.version, "shots": shots, "note": "; ".join(part.warnings)}
    if task.grade is not None:
        _written(task, name, items, part, scorer, tokenizer, known)
    else:
        _chosen(task, name, items, part, scorer, tokenizer, known)
    if config.quick:
        for entry in part.scores:
            entry["detectable"] = _detectable(part.rows, entry)
    _remarks(name, part)
    return part


def _items(task: Task, spec: TaskSpec, config: EvalConfig, few_shot: int, part: Part) -> tuple[int, list[Item]]:
    limit = spec.limit or config.limit
    pinned = task.pinned or task.shots_from is None
    count = 0 if pinned else (spec.shots if spec.shots is not None else few_shot)
    if pinned and spec.shots:
        part.warnings.append(f"{spec.task}: shots are fixed by its definition; {spec.shots} were asked for")
    shots = Shots(count, config.shots_mode, config.shots_seed, lend=spec.shots is not None)
    quick = QUICK_ROWS if config.quick and not limit else None
    built = build_items(task, shots, data=spec.data, limit=limit, quick=quick)
    part.warnings += built.notes
    return count, [item for item in built.items if in_half(item.group or group_key(item.question), config.half)]


def _row_key(number: int, item: Item) -> str:
    return f"{number:05d}-{item.id}"[:60]


def _chosen(
    task: Task, name: str, items: list[Item], part: Part, scorer: Scorer | Served, tokenizer: Any, known: dict[str, Any]
) -> None:
    requests = [(item.prompt, [" " + option for option in item.options]) for item in items]
    if isinstance(scorer, Served):
        scored = scorer.score(requests, name)
    else:
        scored = scorer.score(pair_tokens(tokenizer, requests), name)
    for number, (item, options) in enumerate(zip(items, scored, strict=True)):
        row = choice_row(name, _row_key(number, item), options, item.options, item.gold)
        row |= {"question": item.question, "category": item.category, "group": item.group}
        row |= {"prompt_hash": part.prompt(item.prompt), "flags": [*row["flags"], *item.flags]}
        if item.texts:
            row["options"] = [f"{letter}. {text}" for letter, text in zip(item.options, item.texts, strict=True)]
        if task.metric == "mc2":
            row |= {"correct": row["p_gold"], "correct_norm": None}
        elif not task.normalised:
            row["correct_norm"] = None
        part.rows.append(row)
    part.scores = _scores(task, name, items, part.rows, known)


def _scores(task: Task, name: str, items: list[Item], rows: list[Row], known: dict[str, Any]) -> list[dict[str, Any]]:
    counts, right = [len(i.options) for i in items], [i.gold for i in items]
    known = {**known, "chance": metrics.chance(counts, [len(g) for g in right])}
    known["baselines"] = {} if task.metric == "mc2" else metrics.trivial([i.texts or i.options for i in items], right)
    groups = [r["group"] for r in rows]
    found = [share_score(name, task.metric, [r["correct"] for r in rows], groups, **known)]
    if task.normalised:
        found.append(share_score(name, "acc_norm", [r["correct_norm"] for r in rows], groups, **known))
    if task.by_category and not task.only:
        found.append(_macro(name, rows, known))
        found += _groups(task, name, rows, known)
    return found


def _macro(name: str, rows: list[Row], known: dict[str, Any]) -> dict[str, Any]:
    """The mean over subjects, each counting the same, as the old public board had it; strata, so variances add up."""
    by: dict[str, list[float]] = {}
    for row in rows:
        by.setdefault(row["category"], []).append(row["correct"])
    means = [float(np.mean(v)) for v in by.values()]
    errors = [float(np.var(v, ddof=1)) / len(v) if len(v) > 1 else 0.25 for v in by.values()]
    value, error = float(np.mean(means)), float(np.sqrt(np.sum(errors)) / len(by))
    interval = (error, max(0.0, value - 1.96 * error), min(1.0, value + 1.96 * error))
    note = "; ".join([f"mean over {len(by)} categories", *filter(None, [known["note"]])])
    return score(name, "acc_macro", value, n=len(rows), interval=interval, **{**known, "note": note})


def _groups(task: Task, name: str, rows: list[Row], known: dict[str, Any]) -> list[dict[str, Any]]:
    """One score for each group of categories, weighted by rows, as lm-eval's groups are."""
    found = []
    for group, members in task.groups.items():
        values = [row["correct"] for row in rows if row["category"] in members]
        if values:
            found.append(share_score(name, f"acc_{group}", values, **{**known, "baselines": {}}))
    return found


def _written(
    task: Task, name: str, items: list[Item], part: Part, scorer: Scorer | Served, tokenizer: Any, known: dict[str, Any]
) -> None:
    assert task.grade is not None
    prompts = [item.prompt for item in items]
    asked: list[Row] = [{} for _ in items]  # a server does not tell them by row
    if isinstance(scorer, Served):
        texts = scorer.write(prompts, max_new_tokens=task.max_new_tokens, stop=task.stop)
    else:
        ids = [list(tokenizer(prompt, verbose=False)["input_ids"]) for prompt in prompts]
        texts = generate(scorer.model, tokenizer, ids, max_new_tokens=task.max_new_tokens, stop=task.stop)
        room = prompt_room(scorer.model, tokenizer, task.max_new_tokens)
        asked = [{"prompt_tokens": min(len(i), room), "truncated": len(i) > room} for i in ids]
        for row, text in zip(asked, texts, strict=True):
            row["answer_tokens"] = len(tokenizer(text, add_special_tokens=False)["input_ids"])
    graded = [_graded(task.grade, text, item) for text, item in zip(texts, items, strict=True)]
    _same_metrics(graded, items)
    for number, (item, text, values, counts) in enumerate(zip(items, texts, graded, asked, strict=True)):
        part.rows.append(
            blank(
                name, _row_key(number, item), question=item.question, category=item.category, group=item.group,
                prompt_hash=part.prompt(item.prompt), text_pred=text, text_gold=item.right[0],
                correct=values[next(iter(graded[0]))], options=item.options, gold=item.gold[0],
                flags=[*item.flags, *([] if text.strip() else ["empty"])], **counts,
                **{f"score_{metric}": value for metric, value in values.items()},
            )
        )  # fmt: skip
    for metric in graded[0]:
        groups = [item.group or "" for item in items]
        part.scores.append(share_score(name, metric, [values[metric] for values in graded], groups=groups, **known))


def _same_metrics(graded: list[dict[str, float]], items: list[Item]) -> None:
    for values, item in zip(graded, items, strict=True):
        if set(values) != set(graded[0]):
            raise DataError(
                397, f"the task's grade() gave {sorted(values)} here and {sorted(graded[0])} for the first row",
                where=f"row {item.id}", expected="the same metrics for every row", cure="mend the task file",
            )  # fmt: skip


def _graded(grade: Callable[[str, Item], dict[str, float]], text: str, item: Item) -> dict[str, float]:
    def broken(what: str) -> DataError:
        return DataError(
            397, f"the task's grade() {what}", where=f"row {item.id}: {text[:60]!r}",
            expected="grade(text, item) -> {metric: finite number}, for any text", cure="mend the task file",
        )  # fmt: skip

    try:
        found = grade(text, item)
    except TuneloopError:
        raise
    except Exception as error:  # the user's own code: any error is theirs to see, without our traceback
        raise broken(f"breaks: {type(error).__name__}: {error}") from error
    values = _numbers(found)
    if not values:
        raise broken(f"returned {_shown(found)!r}, a {type(found).__name__}")
    return values


def _numbers(found: Any) -> dict[str, float] | None:
    """Every metric as a float, numpy's numbers and truth values too; None where one is not a finite number."""
    if not isinstance(found, dict) or any(isinstance(value, str | bytes) for value in found.values()):
        return None  # float() would read "1"
    try:
        values = {str(metric): float(value) for metric, value in found.items()}
    except (TypeError, ValueError, OverflowError):  # OverflowError: an int beyond a float's range
        return None
    return values if all(map(math.isfinite, values.values())) else None


def _shown(found: Any) -> str:
    try:
        return str(found)[:60]
    except ValueError:  # Python writes no int of more than 4,300 digits
        return "a number of too many digits"


def _detectable(rows: list[Row], entry: dict[str, Any]) -> float:
    """The difference to another model on the same rows that 80 % power would show, in the score's own unit, were a
    fifth of the rows to flip."""
    shares: list[float] = [row[own] if (own := f"score_{entry['metric']}") in row else row["correct"] for row in rows]
    if all(value in (0.0, 1.0) for value in shares):
        return stats.detectable_difference(int(entry["n"]), 0.2)
    return stats.detectable_paired(float(np.std(shares, ddof=1)), int(entry["n"]))


def _remarks(name: str, part: Part) -> None:
    for what, count in (
        ("lost the beginning of their prompt to the context length", sum(r["truncated"] for r in part.rows)),
        ("are tied within 1e-4", sum(r["tie"] for r in part.rows)),
        (
            "have a token across the join of prompt and option",
            sum("boundary mismatch" in r["flags"] for r in part.rows),
        ),
        ("were answered with nothing", sum("empty" in r["flags"] for r in part.rows)),
    ):
        if count:
            part.warnings.append(f"{name}: {count:,} of {len(part.rows):,} rows {what}")
    for text in part.warnings:
        warn(text)
    for entry in part.scores:
        chance = "" if entry["chance"] is None else f"  chance {entry['chance']:.4f}"
        least = f"  detectable {entry['detectable']:.3f}" if "detectable" in entry else ""
        say(f"{name} {entry['metric']}: {entry['value']:.4f}{chance}  n {entry['n']:,}{least}")
