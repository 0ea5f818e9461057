"""`--dry-run`: one rendered prompt, and an estimate of calls, tokens and money that says what it assumes."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tuneloop.config.generate import GenerateConfig
from tuneloop.generate.candidate import Candidate, Inputs, Workshop
from tuneloop.generate.engine import spent
from tuneloop.generate.methods import CHOSEN, Method
from tuneloop.generate.prompts import Templates
from tuneloop.lm.asking import Answer, Ask, Teacher

# Characters of a token: a common rule of thumb for English; the true number is the teacher's own.
CHARACTERS = 4


@dataclass(frozen=True)
class Preview:
    """`most_tokens` assumes that every answer is as long as it may be; `usd` is None where the price is unknown."""

    prompt: str
    candidates: int | None
    calls: int | None
    most_tokens: int | None
    usd: float | None


class _Shown(Exception):
    def __init__(self, ask: Ask) -> None:
        super().__init__("the first prompt")
        self.ask = ask


async def _show(ask: Ask) -> Answer:
    raise _Shown(ask)


def preview(config: GenerateConfig, method: Method, templates: Templates, teacher: Teacher, inputs: Inputs) -> Preview:
    """Runs the method of candidate 0 up to its first call."""
    shop = Workshop(config, inputs, templates, teacher, _show, teacher, _show)
    try:
        asyncio.run(_first(method, Candidate(shop, 0, [])))
    except _Shown as shown:
        prompt = shown.ask.prompt or "\n\n".join(str(m["content"]) for m in shown.ask.messages)
    candidates = config.limits.rows
    if method.through:
        inputs_count = len(getattr(inputs, method.through)) * (1 if method.through == "weak" else config.per_input)
        candidates = min(inputs_count, candidates or inputs_count)
    if candidates is None:
        return Preview(prompt, None, None, config.limits.tokens, config.limits.usd)
    graded = config.judge is not None and config.method not in CHOSEN
    calls = candidates * (method.calls(config) + graded)
    asked, answered = calls * len(prompt) // CHARACTERS, calls * config.teacher.max_new_tokens
    return Preview(prompt, candidates, calls, asked + answered, spent(config.teacher.price, asked, answered))


async def _first(method: Method, candidate: Candidate) -> None:
    await method.make(candidate)
