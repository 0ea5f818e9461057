"""What is looked at while training: a fixed slice of any benchmark, and answers to a few valid rows.

Both run on the weights of the moment, with plain attention, and leave the random state as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tuneloop import metrics
from tuneloop.config import TaskSpec, TrainConfig
from tuneloop.errors import UsageError
from tuneloop.lm import generate
from tuneloop.models import context_length, plain_attention
from tuneloop.prompts import encode_prompt
from tuneloop.records import Example, read_examples
from tuneloop.scoring import Pair, Scorer, pair_tokens
from tuneloop.store import append_jsonl
from tuneloop.tasks import Item, Task, build_items, find
from tuneloop.train.attention import NAME

NEW_TOKENS = 48  # of a sample: enough to see whether it answers and stops


@dataclass
class Slice:
    """The rows of a benchmark that every evaluation scores, tokenised once."""

    name: str
    task: Task
    items: list[Item]
    pairs: list[list[Pair]]


@dataclass
class Watch:
    tokenizer: Any
    slices: list[Slice] = field(default_factory=list)
    samples: list[tuple[str, list[int], str]] = field(default_factory=list)  # id, prompt ids, the row's own answer


def prepare(config: TrainConfig, tokenizer: Any, data: Path) -> Watch:
    """Rows and prompts, read before the first step so that nothing of them can fail later.

    Raises UsageError 245 where `metric_for_best_model` is none of the tasks.
    """
    names = [spec.name or find(spec.task).name for spec in config.eval_tasks]
    if config.metric_for_best_model not in ("valid_loss", *names):
        raise UsageError(
            245,
            f"'{config.metric_for_best_model}' is not measured while training",
            where="train.metric_for_best_model",
            expected=" or ".join(["valid_loss", *names]),
            cure=f"--set train.eval_tasks=[{config.metric_for_best_model}]",
        )
    slices = [_slice(spec, config, tokenizer) for spec in config.eval_tasks]
    examples = read_examples(data, "valid") if config.eval_samples else []
    return Watch(tokenizer, slices, [_sample(e, tokenizer) for e in examples if _asks(e)][: config.eval_samples])


def _slice(spec: TaskSpec, config: TrainConfig, tokenizer: Any) -> Slice:
    task = find(spec.task)
    built = build_items(task, spec.shots or 0, data=spec.data, quick=spec.limit or config.eval_task_limit)
    requests = [(item.prompt, [" " + option for option in item.options]) for item in built.items]
    pairs = pair_tokens(tokenizer, requests) if task.grade is None else []
    return Slice(spec.name or task.name, task, built.items, pairs)


def _asks(example: Example) -> bool:
    return bool(example.messages and example.messages[-1]["role"] == "assistant") or bool(example.prompt)


def _sample(example: Example, tokenizer: Any) -> tuple[str, list[int], str]:
    if example.messages:
        *asked, answer = example.messages
        return example.id, encode_prompt(asked, tokenizer, example.tools), str(answer["content"])
    return example.id, list(tokenizer(example.prompt)["input_ids"]), str(example.completion or "").strip()


def look(watch: Watch, model: Any, step: int, out: Path | None) -> dict[str, float]:
    """Scores by task name (`<name>_norm` beside it where the task has one); appends samples to `out`, if given."""
    found: dict[str, float] = {}
    model.eval()
    with _plainly(model):
        room = context_length(model, watch.tokenizer)
        for part in watch.slices:
            if part.task.grade is not None:
                found |= _written(part, part.task.grade, watch.tokenizer, model)
            else:
                scorer = Scorer(model, max_length=room)
                found |= _chosen(part, [[o.logprob for o in row] for row in scorer.score(part.pairs, part.name)])
        if watch.samples:
            prompts = [ids for _, ids, _ in watch.samples]
            texts = generate(model, watch.tokenizer, prompts, max_new_tokens=NEW_TOKENS)
            for (name, ids, answer), text in zip(watch.samples, texts, strict=True):
                prompt = watch.tokenizer.decode(ids)
                row = {"step": step, "id": name, "prompt": prompt, "answer": text, "expected": answer}
                if out is not None:
                    append_jsonl(out, row)
    return found


def _written(
    part: Slice, grade: Callable[[str, Item], dict[str, float]], tokenizer: Any, model: Any
) -> dict[str, float]:
    ids = [list(tokenizer(item.prompt)["input_ids"]) for item in part.items]
    texts = generate(model, tokenizer, ids, max_new_tokens=part.task.max_new_tokens, stop=part.task.stop)
    marks = [next(iter(grade(text, item).values())) for text, item in zip(texts, part.items, strict=True)]
    return {part.name: _mean(marks)}


def _chosen(part: Slice, logprobs: list[list[float]]) -> dict[str, float]:
    golds = [item.gold for item in part.items]
    if part.task.metric == "mc2":
        return {part.name: _mean([metrics.true_mass(v, g) for v, g in zip(logprobs, golds, strict=True)])}
    found = {part.name: _mean([metrics.best(v) in g for v, g in zip(logprobs, golds, strict=True)])}
    if part.task.normalised:
        norm = [metrics.by_characters(v, item.options) for v, item in zip(logprobs, part.items, strict=True)]
        found[f"{part.name}_norm"] = _mean([metrics.best(v) in g for v, g in zip(norm, golds, strict=True)])
    return found


def _mean(values: list[Any]) -> float:
    return float(np.mean(values))


@contextmanager
def _plainly(model: Any) -> Iterator[None]:
    """Attention that reads masks and caches; that of packed rows knows neither."""
    before = model.config._attn_implementation
    random = torch.get_rng_state()
    if before == NAME:
        model.set_attn_implementation(plain_attention(model))
    try:
        yield
    finally:
        if before == NAME:
            model.set_attn_implementation(before)
        torch.set_rng_state(random)
