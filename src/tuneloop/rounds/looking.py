"""What analysis needs from a model and may not fetch itself: scores of further prompts, and gradients of rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tuneloop.analyze import Influence
from tuneloop.analyze.probes import Probe, Request
from tuneloop.analyze.rows import Row
from tuneloop.analyze.training import Shown
from tuneloop.config import EvalConfig, ModelConfig
from tuneloop.errors import UsageError
from tuneloop.neighbours.tfidf import Index

CANDIDATES = 40  # training rows looked at for each wrong row: those with the nearest words
NAMED = 5


def probe_with(name: str) -> Probe:
    """Scores requests with the model `name`."""
    from tuneloop.models import context_length, load_model, load_tokenizer
    from tuneloop.scoring import loglikelihoods

    model, tokenizer = load_model(name), load_tokenizer(name)
    room = context_length(model, tokenizer)

    def probe(requests: list[Request]) -> list[list[float]]:
        if not requests:
            return []
        found = loglikelihoods(model, tokenizer, requests, max_length=room)
        return [[option.logprob for option in options] for options in found]

    return probe


def kept_scores(config: EvalConfig, model: ModelConfig, tune: Path, out: Path, data: Path | None) -> dict[str, Path]:
    """Scores every checkpoint that training kept in `tune`; {checkpoint: its scores folder in `out`}, in their order.

    `model` says on which device and in which type. The weights are unpacked for as long as they are scored.
    """
    from tuneloop.evaluate import evaluate
    from tuneloop.models import unpack

    found = {}
    for checkpoint in sorted(tune.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1])):
        scores = out / checkpoint.name
        if not (scores / "manifest.json").is_file():
            weights = unpack(tune, checkpoint, out / f".{checkpoint.name}")
            settings = ModelConfig(name=str(weights), dtype=model.dtype, device=model.device)
            try:
                evaluate(config, settings, scores, data=data, contender=checkpoint.name, overwrite=True)
            finally:
                shutil.rmtree(weights, ignore_errors=True)
        found[checkpoint.name] = scores
    return found


def influence_with(name: str) -> Influence:
    """Similarity of gradients through the adapter `name`: a positive row pulled towards the right answer.

    Source: TracIn (Pruthi et al. 2020) at the last checkpoint, with cosines. Raises UsageError 192 without an adapter:
    gradients of all weights are too large to keep for every row.
    """
    from tuneloop.models import load_model, load_tokenizer

    model, tokenizer = load_model(name), load_tokenizer(name)
    if not hasattr(model, "peft_config"):
        raise UsageError(
            192, "influence needs an adapter", where=name, expected="a tune of train.method=lora",
            cure="set analyze.influence=0, or tune an adapter",
        )  # fmt: skip
    weights = [w for n, w in model.named_parameters() if "lora_" in n]
    for weight in weights:
        weight.requires_grad_(True)

    def influence(wrong: list[Row], train: list[Shown]) -> list[dict[str, Any]]:
        index = Index([row.prompt or row.answer for row in train])
        near, _ = index.nearest([str(row.get("question") or "") for row in wrong], CANDIDATES)
        kept: dict[int, Any] = {}
        found = []
        for row, places in zip(wrong, near, strict=True):
            own = _gradient(model, tokenizer, weights, _asked(row), _due(row))
            pulls = []
            for place in map(int, places):
                if place not in kept:
                    kept[place] = _gradient(model, tokenizer, weights, train[place].prompt, f" {train[place].answer}")
                pulls.append((float(own @ kept[place]), place))
            pulls.sort()
            rows = [*pulls[-NAMED:][::-1], *[p for p in pulls[:NAMED] if p[0] < 0]]
            listed = [{"id": train[p].id, "place": train[p].place, "pull": round(v, 4)} for v, p in rows]
            found.append({"task": row["task"], "row": str(row["row"]), "training": listed})
        return found

    return influence


def _asked(row: Row) -> str:
    return str(row.get("question") or "")


def _due(row: Row) -> str:
    options, gold = row.get("options") or [], int(row.get("gold") or 0)
    return f" {options[gold]}" if 0 <= gold < len(options) else f" {row.get('text_gold') or ''}"


def _gradient(model: Any, tokenizer: Any, weights: list[Any], prompt: str, answer: str) -> Any:
    """The gradient of the answer's mean loss through the adapter, of length 1."""
    import torch
    from torch.nn.functional import cross_entropy

    head = list(tokenizer(prompt)["input_ids"]) or [tokenizer.eos_token_id]
    tail = list(tokenizer(answer, add_special_tokens=False)["input_ids"])
    ids = torch.tensor([head + tail], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(head) - 1 : -1].float()
    loss = cross_entropy(logits, ids[0, len(head) :])
    parts = torch.autograd.grad(loss, weights, allow_unused=True)
    whole = [torch.zeros_like(w) if p is None else p for p, w in zip(parts, weights, strict=True)]
    flat = torch.cat([part.float().flatten() for part in whole])
    return flat / flat.norm().clamp(min=1e-12)
