"""A task of lm-eval's own on our scorer: `lm-eval:piqa`, or `lm-eval:FILE.yaml`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop import metrics
from tuneloop.config import EvalConfig, TaskSpec
from tuneloop.console import say
from tuneloop.errors import PrerequisiteError, UsageError
from tuneloop.evaluate.rows import QUICK_ROWS, Part, Row, blank, score, share_score
from tuneloop.scoring import Scorer
from tuneloop.scoring.harness import harness_model
from tuneloop.tasks import HARNESS, foreign
from tuneloop.tasks.build import LM_EVAL_SEED


def run_harness(spec: TaskSpec, config: EvalConfig, scorer: Scorer, tokenizer: Any, few_shot: int) -> Part:
    """Rows and scores of everything that the name stands for (a group has several tasks)."""
    if config.half != "all":
        check_halves([spec])
    limit = spec.limit or config.limit or (QUICK_ROWS if config.quick else None)
    lm, name = harness_model(scorer, tokenizer), spec.task.removeprefix(HARNESS)
    shots = spec.shots if spec.shots is not None else (few_shot or None)
    found = _evaluated(lm, name, shots, limit, spec.data, config.shots_seed)
    part = Part()
    for task, samples in found["samples"].items():
        label = _label(spec, task, len(found["samples"]))
        known = {"version": str(found["versions"].get(task, "")), "shots": int(found["n-shot"].get(task) or 0)}
        part.rows += _rows(label, samples, part, tokenizer)
        part.scores += _scores(label, samples, found["results"].get(task, {}), known)
    for entry in part.scores:
        say(f"{entry['task']} {entry['metric']}: {entry['value']:.4f}  n {entry['n']:,}")
    return part


def check_halves(tasks: Sequence[TaskSpec]) -> None:
    """Raises UsageError 141 for a task whose rows cannot be kept apart by halves: lm-eval reads them itself."""
    for spec in tasks:
        if foreign(spec.task):
            raise UsageError(
                141, f"the rows of {spec.task} cannot be halved: lm-eval reads them itself", where="eval.tasks",
                expected="tasks of tuneloop in a loop, whose verdict reads rows that no round has read",
                cure=f"leave it out, and score the tunes on it by itself: tuneloop eval --tasks {spec.task}",
            )  # fmt: skip


def _label(spec: TaskSpec, task: str, tasks: int) -> str:
    """The name that a row carries; the tasks of a named group keep theirs, so that no two rows share a key."""
    if spec.name is None:
        return f"{HARNESS}{task}"
    return spec.name if tasks == 1 else f"{spec.name}/{task}"


def _evaluated(
    lm: Any, name: str, shots: int | None, limit: int | None, include: str | None, seed: int
) -> dict[str, Any]:
    """What lm-eval's own evaluator returns; unknown names and data that cannot be fetched are coded errors."""
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    file = Path(name).is_file()
    manager = TaskManager(include_path=include or (str(Path(name).parent) if file else None), include_defaults=not file)
    if not file and not manager.match_tasks([name]):
        raise UsageError(120, f"lm-eval knows no task '{name}'", where="eval.tasks", cure="see `lm-eval ls tasks`")
    try:
        found = simple_evaluate(
            lm,
            tasks=[name],
            num_fewshot=shots,
            limit=limit,
            task_manager=manager,
            bootstrap_iters=100,
            fewshot_random_seed=LM_EVAL_SEED + seed,
        )
    except (OSError, ConnectionError) as error:
        raise PrerequisiteError(
            260, f"cannot fetch the rows of {name} ({type(error).__name__})", where=f"task {HARNESS}{name}",
            cure="go online, or give a YAML with local data_files as lm-eval:FILE.yaml",
        ) from error  # fmt: skip
    assert found is not None
    return dict(found)


def _metric_names(sample: dict[str, Any]) -> list[str]:
    """Metrics of one row that are plain numbers; others are aggregated by lm-eval alone."""
    return [m for m in sample.get("metrics", []) if isinstance(sample.get(m), int | float) and not _nan(sample[m])]


def _nan(value: float) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _rows(label: str, samples: list[dict[str, Any]], part: Part, tokenizer: Any) -> list[Row]:
    def size(text: str) -> int:
        return len(tokenizer(text, add_special_tokens=False)["input_ids"])

    # A task with several filters reads every answer in several ways: one row each, headline by the first.
    first = samples[0]["filter"] if samples else ""
    others: dict[int, Row] = {}
    for sample in samples:
        if sample["filter"] != first:
            more = others.setdefault(sample["doc_id"], {})
            more |= {f"score_{m}/{sample['filter']}": float(sample[m]) for m in _metric_names(sample)}
    rows = []
    for sample in samples:
        if sample["filter"] != first:
            continue
        names = _metric_names(sample)
        arguments = sample["arguments"]
        prompt = str(arguments[0][0])
        row = blank(
            label, f"{sample['doc_id']:05d}",
            question=prompt[-500:], prompt_hash=part.prompt(prompt), correct=float(sample[names[0]]) if names else None,
            prompt_tokens=size(prompt),
        )  # fmt: skip
        replies = sample["filtered_resps"]
        if replies and isinstance(replies[0], list | tuple):
            sums = [float(reply[0]) for reply in replies]
            options = [str(a[1]) for a in arguments[: len(sums)]]
            row |= {"logprobs": sums, "greedy": [bool(r[1]) for r in replies], "options": options}
            row |= {"pred": metrics.best(sums), "tie": metrics.tied(sums), "lengths": [len(o) for o in options]}
            row |= {"probabilities": metrics.shares(sums), "answer_tokens": size(options[row["pred"]])}
            if isinstance(sample["target"], int):
                row["gold"] = sample["target"]
        elif replies:
            row |= {"text_pred": str(replies[0]), "text_gold": str(sample["target"])}
            row["answer_tokens"] = size(row["text_pred"])
        rows.append(row | others.get(sample["doc_id"], {}))
    return rows


def _scores(
    label: str, samples: list[dict[str, Any]], results: dict[str, Any], known: dict[str, Any]
) -> list[dict[str, Any]]:
    """Every metric: from the rows where it is their mean, else lm-eval's value with its own standard error."""
    found = []
    for key, value in results.items():
        metric, _, which = key.partition(",")
        if not which or metric.endswith("_stderr") or not isinstance(value, int | float):
            continue
        name = metric if which == "none" else f"{metric}/{which}"
        rows = [s[metric] for s in samples if s["filter"] == which and metric in _metric_names(s)]
        if rows and math.isclose(sum(rows) / len(rows), value, rel_tol=1e-9, abs_tol=1e-12):
            found.append(share_score(label, name, [float(v) for v in rows], **known))
            continue
        spread = results.get(f"{metric}_stderr,{which}")
        error = float(spread) if isinstance(spread, int | float) else math.nan
        count = len([s for s in samples if s["filter"] == which])
        interval = (error, value - 1.96 * error, value + 1.96 * error)
        found.append(score(label, name, float(value), n=count, interval=interval, **known))
    return found
