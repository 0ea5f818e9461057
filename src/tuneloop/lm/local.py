"""Text from a model in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tuneloop.console import progress, warn
from tuneloop.errors import DataError
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

    Batches are padded on the left, and a batch ends when each of its rows has written a stop string or an end token.
    A prompt that does not leave room in the context loses its beginning, and a warning counts such prompts. Memory that
    runs out halves the batch, aloud. Sampling depends on `seed` and the batches alone. Raises DataError 378 for a model
    whose outputs are not finite.
    """
    import torch

    room = prompt_room(model, tokenizer, max_new_tokens)
    max_new_tokens = min(max_new_tokens, context_length(model, tokenizer) - room)
    long = sum(len(ids) > room for ids in prompts)
    if long:
        warn(f"{long} of {len(prompts)} prompts lost their beginning: {room} tokens of context are left for a prompt")
    cut = [ids[-room:] or [tokenizer.eos_token_id or 0] for ids in prompts]
    order = sorted(range(len(cut)), key=lambda i: -len(cut[i]))
    texts = [""] * len(cut)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        at, size = 0, batch_size
        with progress("writing", len(order)) as bar:
            while at < len(order):
                chunk = order[at : at + size]
                try:
                    found = _batch(model, tokenizer, [cut[i] for i in chunk], max_new_tokens, temperature, stop)
                except torch.OutOfMemoryError:
                    if size == 1:
                        raise
                    size = max(1, size // 2)
                    warn(f"out of memory: going on with {size} prompts at a time")
                    continue
                for index, text in zip(chunk, found, strict=True):
                    texts[index] = _cut(text, stop)
                at += len(chunk)
                bar.advance(len(chunk))
    return texts


def prompt_room(model: Any, tokenizer: Any, max_new_tokens: int) -> int:
    """Tokens of a prompt that `generate` keeps before so long an answer; one at least."""
    return max(1, context_length(model, tokenizer) - max_new_tokens)


def _batch(
    model: Any,
    tokenizer: Any,
    rows: list[list[int]],
    max_new_tokens: int,
    temperature: float,
    stop: Sequence[str],
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
            logits_processor=[_finite],
            stopping_criteria=[_stopped(tokenizer, width, stop)] if stop else None,
        )
    return [str(t) for t in tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)]


def _finite(_: Any, scores: Any) -> Any:
    """NaN would be written as token 0 for ever; infinities below are what other processors mask with."""
    if bool(scores.isnan().any()):
        raise DataError(
            378, "the model's outputs are not finite", where="writing", expected="finite numbers",
            cure="the weights hold NaN or overflow: check the training, or set model.dtype=float32",
        )  # fmt: skip
    return scores


def _stopped(tokenizer: Any, width: int, stop: Sequence[str]) -> Callable[..., Any]:
    """Whether each row of a batch has written a stop string among its last tokens."""
    import torch

    # A token can be less than a byte of a stop string's last letter, and can reach beyond either end of it.
    reach = max(len(s.encode()) for s in stop) + 1

    def done(ids: Any, _: Any, **__: Any) -> Any:
        tails = tokenizer.batch_decode(ids[:, max(width, ids.shape[1] - reach) :], skip_special_tokens=True)
        return torch.tensor([any(s in tail for s in stop) for tail in tails], device=ids.device)

    return done


def _cut(text: str, stop: Sequence[str]) -> str:
    found = [text.find(s) for s in stop if s in text]
    return text[: min(found)] if found else text
