"""What can be done with scored rows without the model: score again, compare row by row, judge pairs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tuneloop import metrics as metrics_of
from tuneloop import stats
from tuneloop.config import JudgeSpec
from tuneloop.errors import DataError, UsageError
from tuneloop.evaluate import paired
from tuneloop.evaluate.rows import Part, share_score, write_part
from tuneloop.evaluate.run import judge_inputs
from tuneloop.evaluate.servers import judge_from
from tuneloop.evaluate.written import grade
from tuneloop.judge import Case, Preference, pairwise, win_share
from tuneloop.metrics import text_metric
from tuneloop.scored import Row, check_rows, read_scores, value
from tuneloop.store import open_run, write_json, write_text

Entry = dict[str, Any]


def rescore(
    scores: Path, metrics: Sequence[str], out: Path, *, judge: JudgeSpec | None = None, overwrite: bool = False
) -> Path:
    """A new scores folder: written answers under other text metrics, options under acc, acc_norm or p_gold.

    The first metric that fits a task becomes its headline; tasks that none fits stay as they are. Raises DataError 396
    when none fits any.
    """
    texts = [name for name in metrics if name not in OPTION_METRICS]
    numbers = [name for name in metrics if name in OPTION_METRICS]
    for name in texts:
        if name != "judge":
            text_metric(name)
        elif judge is None:
            raise UsageError(152, "no judge is named", where="eval.judge", cure="--set eval.judge={model: ...}")
    if out.resolve() == scores.resolve():
        raise UsageError(142, "the output is the folder that is read", where=str(out), cure="choose another --out")
    head, rows = read_scores(scores)
    settings = {"metrics": list(metrics), "judge": judge.model_dump() if judge else None}
    inputs: dict[str, str | Path] = {"scores": scores, **judge_inputs(judge)}
    with open_run(out, stage="eval", config=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.state == "done":
            return run.path
        parts, found, partial = [], 0, run.path / "partial"
        partial.mkdir(exist_ok=True)
        asked = judge_from(judge if "judge" in metrics else None, partial)
        for task in dict.fromkeys(str(r["task"]) for r in rows):
            own = [r for r in rows if r["task"] == task]
            part = Part(rows=own, scores=[s for s in head["scores"] if s["task"] == task])
            kept = {name: part.scores[0].get(name, 0) for name in ("shots", "version")}
            if texts and written(own):
                part.scores, found = [], found + 1
                grade(part, task, texts, asked, **kept)
            elif numbers and any(r.get("golds") for r in own):
                part.scores, found = [], found + 1
                _choose(part, task, numbers, kept)
            parts.append(part)
        if not found:
            raise DataError(
                396, f"no task here can be scored by {', '.join(metrics)}", where=str(scores),
                expected=f"text metrics for written answers, {', '.join(OPTION_METRICS)} for options",
            )  # fmt: skip
        kept = {k: v for k, v in head.items() if k not in ("scores", "warnings")}
        write_part(run.path, parts, {**kept, "rescored_from": str(scores)})
        shutil.copyfile(scores / "prompts.parquet", run.path / "prompts.parquet")
        shutil.rmtree(partial)
        run.finish(rows=len(rows))
    return run.path


def _choose(part: Part, task: str, names: Sequence[str], kept: Entry) -> None:
    """Options under other metrics, from the stored log-likelihoods."""
    counts = [len(r["logprobs"]) for r in part.rows]
    chance = metrics_of.chance(counts, [len(r["golds"]) for r in part.rows])
    for place, name in enumerate(names):
        values = [OPTION_METRICS[name](r) for r in part.rows]
        for row, found in zip(part.rows, values, strict=True):
            row |= {f"score_{name}": found} | ({"correct": found} if place == 0 else {})
        groups = [str(r.get("group") or "") for r in part.rows]
        part.scores.append(share_score(task, name, values, groups, chance=chance, **kept))


def _by_characters(row: Row) -> float:
    normed = [v / max(1, n) for v, n in zip(row["logprobs"], row["lengths"], strict=True)]
    return float(metrics_of.best(normed) in row["golds"])


OPTION_METRICS: dict[str, Callable[[Row], float]] = {
    "acc": lambda row: float(metrics_of.best(row["logprobs"]) in row["golds"]),
    "acc_norm": _by_characters,
    "p_gold": lambda row: metrics_of.true_mass(row["logprobs"], row["golds"]),
}


def written(rows: Sequence[Row]) -> bool:
    """Whether these rows are answers that a model wrote, and not options that it chose among."""
    return bool(rows) and not any(r.get("logprobs") for r in rows) and any(r.get("text_pred") is not None for r in rows)


def diff(scores: Path, against: Path, alpha: float = 0.05) -> Entry:
    """Tasks that both runs scored, paired and corrected together (Holm), the categories that changed (false discovery
    rate), and the rows; DataError 390 where a shared task has other rows. Tasks of one side only are listed."""
    after, before = paired.read(scores.name, scores), paired.read(against.name, against)
    shared = [t for t in after.rows if t in before.rows]
    if not shared:
        raise DataError(390, "the two score folders share no task", where=f"{scores} against {against}")
    tests = paired.correct([paired.pair(after, before, task) for task in shared], alpha)
    rows = []
    for task in shared:
        for key, row in after.rows[task].items():
            other = before.rows[task][key]
            if value(row) != value(other) or row.get("pred") != other.get("pred"):
                rows.append(_changed(task, key, row, other))
    rows.sort(key=lambda r: (r["after"] is None, (r["after"] or 0) - (r["before"] or 0)))
    alone = {str(p.path): sorted(set(p.rows) - set(shared)) for p in (after, before)}
    changed = [entry for task in shared for entry in paired.by_category(after, before, task, alpha)]
    return {"tests": tests, "categories": changed, "changed": rows, "only": {k: v for k, v in alone.items() if v}}


def _changed(task: str, key: str, row: Row, other: Row) -> Entry:
    said = {name: _said(r) for name, r in (("said", row), ("said_before", other))}
    question = str(row.get("question") or "")
    return {"task": task, "row": key, "question": question, "before": other["correct"], "after": row["correct"], **said}


def _said(row: Row) -> str:
    options, pred = row.get("options") or [], row.get("pred")
    if row.get("text_pred") is not None:
        return str(row["text_pred"])
    return str(options[pred]) if pred is not None and 0 <= pred < len(options) else ""


def judge_pairs(
    scores: Path, against: Path, judge: JudgeSpec, out: Path, *, limit: int | None = None, overwrite: bool = False
) -> Path:
    """The judge's choice between the written answers of two runs to the same rows, each pair in both orders.

    `judged.json`: by task the share of pairs that `scores` wins (`win`, a tie counting half), with its interval and a
    sign-flip test; `pairs.jsonl`: the winner of each pair and what the judge wrote. Raises DataError 390 for other
    rows, 396 where nothing written is shared.
    """
    settings = {"judge": judge.model_dump(), "limit": limit}
    inputs: dict[str, str | Path] = {"scores": scores, "against": against, **judge_inputs(judge)}
    after, before = paired.read("scores", scores), paired.read("against", against)
    shared = [t for t, rows in after.rows.items() if t in before.rows and written(list(rows.values()))]
    if not shared:
        raise DataError(396, "the two runs share no written answers", where=f"{scores} against {against}")
    for task in shared:
        check_rows(task, after.rows[task], before.rows[task], scores, against)
    with open_run(out, stage="judge", config=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.state != "done":
            partial = run.path / "partial"
            partial.mkdir(exist_ok=True)
            asked = judge_from(judge, partial)
            assert asked is not None
            found, lines = [], []
            for task in shared:
                pairs = [(key, row, before.rows[task][key]) for key, row in after.rows[task].items()][:limit]
                chosen = pairwise(asked[0], [(_case(b), _case(a)) for _, a, b in pairs])
                found.append(_won(task, chosen))
                lines += [_preferred(task, key, one) for (key, _, _), one in zip(pairs, chosen, strict=True)]
            write_text(run.path / "pairs.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
            write_json(run.path / "judged.json", {"judge": judge.model, "tasks": found})
            shutil.rmtree(partial)
            run.finish(rows=len(lines))
    return run.path


def _won(task: str, chosen: list[Preference]) -> Entry:
    won, unread = win_share(chosen)
    mean, error, low, high = stats.mean_interval(won)
    entry: Entry = {"task": task, "pairs": len(chosen), "unread": unread, "win": mean, "low": low, "high": high}
    entry |= {"p": stats.paired_bootstrap([w - 0.5 for w in won])[2], "stderr": error}
    entry |= {"by_place": sum(c.by_place for c in chosen)}
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in entry.items()}


def _preferred(task: str, key: str, one: Preference) -> Entry:
    winner = {"first": "against", "second": "scores"}.get(one.winner or "", one.winner)
    return {"task": task, "row": key, "winner": winner, "by_place": one.by_place, "raw": one.raw}


def _case(row: Row) -> Case:
    return Case(str(row.get("question") or ""), str(row.get("text_pred") or ""), str(row.get("text_gold") or ""))
