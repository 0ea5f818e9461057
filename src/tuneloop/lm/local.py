"""Text from a model in this process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tuneloop.console import warn
from tuneloop.models import context_length, eos_ids


def generate(
    model: Any,
    tokenizer: Any,
    prompts: list[list[int]],
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    temperature: float = 0.0,
    batch_size: int = 16,
    seed: int = 0,
) -> list[str]:
    """Continuations of token-id prompts, in order, cut at the first stop string; greedy at temperature 0.

    Batches are padded on the left; a prompt that does not leave room in the context loses its beginning, and a
    warning counts such prompts. Sampling depends on `seed` alone.
    """
    import torch

    context = context_length(model, tokenizer)
    max_new_tokens = min(max_new_tokens, context - 1)
    room = context - max_new_tokens
    long = sum(len(ids) > room for ids in prompts)
    if long:
        warn(f"{long} of {len(prompts)} prompts lost their beginning: {room} tokens of context are left for a prompt")
    cut = [ids[-room:] or [tokenizer.eos_token_id or 0] for ids in prompts]
    order = sorted(range(len(cut)), key=lambda i: -len(cut[i]))
    texts = [""] * len(cut)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for at in range(0, len(order), batch_size):
            chunk = order[at : at + batch_size]
            found = _batch(model, tokenizer, [cut[i] for i in chunk], max_new_tokens, temperature)
            for index, text in zip(chunk, found, strict=True):
                texts[index] = _cut(text, stop)
    return texts


def _batch(
    model: Any, tokenizer: Any, rows: list[list[int]], max_new_tokens: int, temperature: float = 0.0
) -> list[str]:
    import torch

    ends = eos_ids(model, tokenizer)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends[0] if ends else 0)
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), pad)
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        mask[i, width - len(row) :] = 1
    with torch.no_grad():
        out = model.generate(
            input_ids=ids.to(model.device),
            attention_mask=mask.to(model.device),
            max_new_tokens=max_new_tokens,
            **({"do_sample": True, "temperature": temperature} if temperature > 0 else {"do_sample": False}),
            eos_token_id=ends or None,
            pad_token_id=pad,
        )
    return [str(t) for t in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


def _cut(text: str, stop: Sequence[str]) -> str:
    found = [text.find(s) for s in stop if s in text]
    return text[: min(found)] if found else text
