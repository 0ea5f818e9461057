"""A model in this process, and a script; both answer one request (`ask`) or a list of conversations (`complete`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tuneloop.lm.asking import Answer, Ask, Message
from tuneloop.lm.local import generate
from tuneloop.prompts import encode_prompt


class LM(Protocol):
    """Answers conversations, in order; a bare string is one user message."""

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]: ...


def as_messages(ask: str | list[Message]) -> list[Message]:
    return [{"role": "user", "content": ask}] if isinstance(ask, str) else ask


@dataclass(slots=True)
class Local:
    """A loaded model; its tokenizer must carry a template (see `prompts.apply_template`)."""

    model: Any
    tokenizer: Any
    temperature: float = 0.0
    seed: int = 0

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]:
        ids = [encode_prompt(as_messages(ask), self.tokenizer) for ask in asks]
        return generate(
            self.model,
            self.tokenizer,
            ids,
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )


@dataclass(slots=True)
class Scripted:
    """Answers from a function of the conversation (a raw prompt counts as one user message): tests, demo, dry runs."""

    answer: Callable[[list[Message]], str]
    name: str = "scripted"
    capabilities: frozenset[str] = field(default_factory=lambda: frozenset({"chat", "completions"}))

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]:
        return [self.answer(as_messages(ask)) for ask in asks]

    async def ask(self, ask: Ask, key: str) -> Answer:
        messages = list(ask.messages) if ask.prompt is None else as_messages(ask.prompt)
        text = self.answer(messages)
        # Counted in words: a script has no tokens.
        words = sum(len(str(m["content"]).split()) for m in messages)
        return Answer(text, "stop", words, len(text.split()))

    async def close(self) -> None:
        return None
