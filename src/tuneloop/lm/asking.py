"""One request to a model, its answer, and the kinds in which it can fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuneloop.errors import UsageError
from tuneloop.store import sha256_text

Message = dict[str, Any]
# Failures that another try may cure. `request` (the server refuses this very request) is not one.
TRANSIENT = frozenset({"transport", "timeout", "rate_limit", "server", "protocol"})


@dataclass(frozen=True, slots=True)
class Ask:
    """One request: a conversation (`messages`) or raw text to go on from (`prompt`).

    `seed` also tells apart requests that are otherwise alike. `template` names the prompt it came from; it is not sent.
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_new_tokens: int = 512
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    schema: dict[str, Any] | None = None
    logprobs: bool = False
    template: str = ""

    def payload(self) -> dict[str, Any]:
        """What decides the answer, as plain values."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "template"}


@dataclass(frozen=True, slots=True)
class Answer:
    """Text and what the server said about it. `finish` is 'stop', 'length' or 'content_filter'; None is unknown."""

    text: str
    finish: str = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    logprobs: tuple[float, ...] | None = None  # of each token of the answer


class Failed(Exception):
    """A call without an answer. `kind`: one of TRANSIENT, or 'request'; `wait`: the server's Retry-After, seconds."""

    def __init__(self, kind: str, what: str, *, raw: str = "", wait: float | None = None) -> None:
        super().__init__(f"{kind}: {what}")
        self.kind, self.what, self.raw, self.wait = kind, what, raw, wait


class Teacher(Protocol):
    """Answers one request at a time, many at once; raises Failed. `key` is the request's hash (an idempotency key)."""

    name: str
    capabilities: frozenset[str]

    async def ask(self, ask: Ask, key: str) -> Answer: ...

    async def close(self) -> None: ...


def request_key(teacher: str, ask: Ask) -> str:
    """Hash of the model's name and everything that decides the answer, 32 hexadecimal digits."""
    return sha256_text(json.dumps([teacher, ask.payload()], sort_keys=True, ensure_ascii=False))[:32]


def need_capabilities(teacher: Teacher, needed: Sequence[str], why: str) -> None:
    """Raises UsageError 161 where the teacher does not declare what a method needs."""
    missing = sorted(set(needed) - teacher.capabilities)
    if missing:
        raise UsageError(
            161,
            f"the teacher '{teacher.name}' does not offer {', '.join(missing)}, which {why} needs",
            where="generate.teacher.capabilities",
            expected=f"{', '.join(sorted(needed))}; declared: {', '.join(sorted(teacher.capabilities))}",
            cure="declare it if the server has it, or choose another method or teacher",
        )
