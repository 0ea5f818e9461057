"""Token by token, several prompts at once: what the server streams and what a teacher in this process says.

Each row has its own length, temperature, stop strings and random numbers, so its text does not depend on what stands
beside it (up to float noise of the batch).

    B rows, T tokens, V vocabulary
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuneloop.models import context_length, eos_ids


@dataclass
class Job:
    """One prompt. `tell(text, tokens)` gets each piece of text that is final, and the tokens since the last."""

    ids: list[int]
    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    top_logprobs: int = 0
    tell: Callable[[str, list[Token]], None] | None = None
    cancelled: bool = False


@dataclass
class Token:
    """A token of the answer: its text, its log-probability, and the likeliest ones at its place."""

    id: int
    text: str
    logprob: float
    top: list[tuple[str, float]]


@dataclass
class Said:
    """`finish`: 'stop' (end token or stop string), 'length', or 'cancelled'."""

    text: str = ""
    finish: str = "length"
    tokens: list[Token] = field(default_factory=list)


class _Row:
    """One job under way: its tokens so far, and how much of its text is safe to tell."""

    def __init__(self, job: Job, tokenizer: Any, device: Any) -> None:
        import torch

        self.job, self.tokenizer = job, tokenizer
        self.said = Said()
        self.told = self.told_tokens = 0
        self.done = False
        self.random = torch.Generator(device="cpu").manual_seed(job.seed)

    def take(self, token: int, logits_V: Any, ends: Sequence[int]) -> None:
        """One more token; ends the row where it is an end token or completes a stop string."""
        if self.job.cancelled:
            return self.finish("cancelled")
        if token in ends:
            return self.finish("stop")
        before = self.said.text
        ids = [*(t.id for t in self.said.tokens), token]
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        self.said.tokens.append(self._token(token, text, before, logits_V))
        self.said.text = text
        found = [at for stop in self.job.stop if (at := text.find(stop)) >= 0]
        if found:
            self.said.text = text[: min(found)]
            return self.finish("stop")
        if len(self.said.tokens) >= self.job.max_new_tokens:
            return self.finish("length")
        self._tell(self._safe())

    def _token(self, token: int, text: str, before: str, logits_V: Any) -> Token:
        import torch

        scores_V = torch.log_softmax(logits_V.float(), -1)
        best = torch.topk(scores_V, self.job.top_logprobs) if self.job.top_logprobs else None
        top = [] if best is None else list(zip(best.indices.tolist(), best.values.tolist(), strict=True))
        named = [(str(self.tokenizer.decode([i])), v) for i, v in top]
        return Token(token, text[len(before) :], float(scores_V[token]), named)

    def _safe(self) -> int:
        """Characters that no later token can change: not half a character, not the beginning of a stop string."""
        text = self.said.text
        end = len(text.rstrip("\ufffd"))
        for stop in self.job.stop:
            for size in range(min(len(stop) - 1, end), 0, -1):
                if text.endswith(stop[:size], 0, end):
                    end -= size
                    break
        return end

    def _tell(self, end: int) -> None:
        if self.job.tell is not None and end > self.told:
            self.job.tell(self.said.text[self.told : end], self.said.tokens[self.told_tokens :])
            self.told, self.told_tokens = end, len(self.said.tokens)

    def finish(self, reason: str) -> None:
        self.done, self.said.finish = True, reason
        self._tell(len(self.said.text))


def decode(model: Any, tokenizer: Any, jobs: Sequence[Job]) -> list[Said]:
    """The answers in order. A prompt must leave room in the context: `room` says how much is left."""
    import torch

    ends = eos_ids(model, tokenizer)
    rows = [_Row(job, tokenizer, model.device) for job in jobs]
    width = max(len(job.ids) for job in jobs)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (ends[0] if ends else 0)
    ids_BT = torch.full((len(rows), width), pad, device=model.device)
    mask_BT = torch.zeros_like(ids_BT)
    for i, job in enumerate(jobs):
        ids_BT[i, width - len(job.ids) :] = torch.tensor(job.ids, device=model.device)
        mask_BT[i, width - len(job.ids) :] = 1
    places_BT = (mask_BT.cumsum(-1) - 1).clamp(min=0)
    cache: Any = None
    with torch.inference_mode():
        while True:
            out = model(
                input_ids=ids_BT, attention_mask=mask_BT, position_ids=places_BT, past_key_values=cache, use_cache=True,
                logits_to_keep=1,
            )  # fmt: skip
            cache = out.past_key_values
            logits_BV = out.logits[:, -1]
            chosen = [0 if row.done else _choose(row, logits_BV[i]) for i, row in enumerate(rows)]
            for i, row in enumerate(rows):
                if not row.done:
                    row.take(chosen[i], logits_BV[i], ends)
            if all(row.done for row in rows):
                return [row.said for row in rows]
            ids_BT = torch.tensor(chosen, device=model.device)[:, None]
            mask_BT = torch.cat([mask_BT, torch.ones_like(ids_BT)], -1)
            places_BT = places_BT[:, -1:] + 1


def _choose(row: _Row, logits_V: Any) -> int:
    """Greedy at temperature 0, else drawn from the smallest set of tokens that holds `top_p` of the probability."""
    import torch

    if row.job.temperature == 0:
        return int(logits_V.argmax())
    probabilities_V = torch.softmax(logits_V.float().cpu() / row.job.temperature, -1)
    if row.job.top_p < 1:
        ordered, index = probabilities_V.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= row.job.top_p] = 0
        probabilities_V = torch.zeros_like(probabilities_V).scatter(0, index, ordered)
    return int(torch.multinomial(probabilities_V, 1, generator=row.random))


def room(model: Any, tokenizer: Any, prompt: Sequence[int]) -> int:
    """Tokens that the context leaves for an answer; below 1 the prompt is too long."""
    return context_length(model, tokenizer) - len(prompt)


def finite(value: float) -> float:
    """A log-probability that JSON can hold."""
    return value if math.isfinite(value) else -9999.0
