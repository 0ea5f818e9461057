"""Scores a model on benchmarks and on the test split of a data folder; compares contenders on the same rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneloop.config import EvalConfig, ModelConfig
from tuneloop.errors import UsageError
from tuneloop.evaluate.benchmarks import expand, run_task
from tuneloop.evaluate.rows import Part, write_part
from tuneloop.evaluate.split import Split, run_accuracy, run_generated, run_perplexity
from tuneloop.models import context_length, load_model, load_tokenizer, locate
from tuneloop.prompts import apply_template
from tuneloop.scoring import Scorer
from tuneloop.stage import callable_stage
from tuneloop.store import open_run, read_json, write_json

__all__ = ["compare", "evaluate"]
Work = tuple[str, Callable[[], Part]]


def evaluate(
    config: EvalConfig,
    model: ModelConfig,
    out: Path,
    *,
    data: Path | None = None,
    contender: str = "base",
    few_shot: int = 0,
    overwrite: bool = False,
    adapter: Path | None = None,
) -> Path:
    """Scores `model` into the scores folder `out`: scores.json, rows.parquet, prompts.parquet.

    A task that was finished before a kill is not scored again. Raises UsageError 125 when there is nothing to score.
    """
    config = config.model_copy(update={"tasks": expand(config.tasks)})
    if not config.tasks and not (data and config.test_split):
        raise UsageError(125, "nothing to score", where="eval.tasks", cure="name a task, or give a data folder")
    target = str(adapter or model.adapter or model.name)
    settings = {**config.model_dump(), "model": model.model_dump(), "contender": contender, "shots": few_shot}
    inputs: dict[str, str | Path] = {"model": Path(locate(target))}
    inputs |= {"data": data} if data else {}
    inputs |= {f"task:{i}": Path(spec.data) for i, spec in enumerate(config.tasks) if spec.data}
    with open_run(out, stage="eval", config=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.state == "done":
            return run.path
        parts = _run(config, model, target, run.path / "partial", data=data, few_shot=few_shot)
        write_part(run.path, parts, {"contender": contender, "model": target, "few_shot": few_shot})
        for path in (run.path / "partial").glob("*.json"):
            path.unlink()
        (run.path / "partial").rmdir()
        run.finish(rows=sum(len(p.rows) for p in parts))
    return run.path


def _run(
    config: EvalConfig, model: ModelConfig, target: str, kept: Path, *, data: Path | None, few_shot: int
) -> list[Part]:
    tokenizer = load_tokenizer(target)
    loaded = load_model(target, dtype=model.dtype, device=model.device)
    room = config.max_length or context_length(loaded, tokenizer)
    scorer = Scorer(loaded, max_length=room, batch_tokens=config.batch_tokens)
    work: list[Work] = []
    for spec in config.tasks:
        work.append((spec.name or spec.task, lambda s=spec: run_task(s, config, scorer, tokenizer, few_shot)))  # type: ignore[misc]
    if data is not None and config.test_split:
        work += _split_work(Split(data, config, tokenizer, few_shot), model, scorer)
    kept.mkdir(exist_ok=True)
    return [_once(kept / f"{number:03d}.json", job) for number, (_, job) in enumerate(work)]


def _split_work(split: Split, model: ModelConfig, scorer: Scorer) -> list[Work]:
    """What the kinds of rows in the test split ask for."""
    work: list[Work] = []
    if any(e.messages for e in split.test):
        apply_template(split.tokenizer, model.template)
    generated = split.config.generate_limit > 0
    if split.labelled:
        work.append(("test:accuracy", lambda: run_accuracy(split, scorer)))
    if split.labelled and generated:
        work.append(("test:free_text", lambda: run_generated(split, scorer.model, split.labelled, "test:free_text")))
    if split.asked and generated:
        work.append(("test:exact_match", lambda: run_generated(split, scorer.model, split.asked, "test:exact_match")))
    if split.test:
        work.append(("test:perplexity", lambda: run_perplexity(split, scorer)))
    return work


def _once(path: Path, job: Callable[[], Part]) -> Part:
    if path.is_file():
        return Part(**read_json(path))
    part = job()
    write_json(path, asdict(part))
    return part


def compare(
    config: EvalConfig,
    contenders: list[dict[str, Any]],
    out: Path,
    *,
    data: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Scores every contender on the same rows: one scores folder each below `out`, and contenders.json.

    A contender is {name, model, adapter?, template?, few_shot?}; `model` is a ModelConfig or a name.
    """
    names = [str(c["name"]) for c in contenders]
    if len(set(names)) != len(names) or not names:
        raise UsageError(126, "contenders need names of their own", where="contenders", expected="one or more")
    out.mkdir(parents=True, exist_ok=True)
    listed = []
    for one in contenders:
        model = one["model"] if isinstance(one["model"], ModelConfig) else ModelConfig(name=str(one["model"]))
        if one.get("template"):
            model = model.model_copy(update={"template": one["template"]})
        folder = evaluate(
            config, model, out / str(one["name"]), data=data, contender=str(one["name"]),
            few_shot=int(one.get("few_shot") or 0), overwrite=overwrite,
            adapter=Path(one["adapter"]) if one.get("adapter") else None,
        )  # fmt: skip
        scores = read_json(folder / "scores.json")["scores"]
        listed.append(
            {"name": one["name"], "model": model.name, "few_shot": one.get("few_shot") or 0, "scores": scores}
        )
    write_json(out / "contenders.json", {"contenders": listed})
    return out


callable_stage(__name__)
