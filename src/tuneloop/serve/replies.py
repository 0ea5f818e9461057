"""Answers in the shapes of the protocol, whole and in pieces."""

from __future__ import annotations

import time
import uuid
from typing import Any

from tuneloop.lm.decode import Job, Said, Token, finite


def head(kind: str, model: str) -> dict[str, Any]:
    prefix = "chatcmpl" if kind.startswith("chat") else "cmpl"
    return {"id": f"{prefix}-{uuid.uuid4().hex}", "object": kind, "created": int(time.time()), "model": model}


def models(name: str, capabilities: frozenset[str]) -> dict[str, Any]:
    """The one model of this server, with what it can do."""
    card = {"id": name, "object": "model", "created": 0, "owned_by": "tuneloop", "capabilities": sorted(capabilities)}
    return {"object": "list", "data": [card]}


def usage(job: Job, said: Said) -> dict[str, int]:
    asked, told = len(job.ids), len(said.tokens)
    return {"prompt_tokens": asked, "completion_tokens": told, "total_tokens": asked + told}


def chat_logprobs(tokens: list[Token], top: int) -> dict[str, Any]:
    return {
        "content": [
            {**_scored(token.text, token.logprob), "top_logprobs": [_scored(text, v) for text, v in token.top[:top]]}
            for token in tokens
        ],
        "refusal": None,
    }


def _scored(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": finite(logprob), "bytes": list(text.encode("utf-8", "replace"))}


def text_logprobs(tokens: list[Token], top: int, start: int = 0) -> dict[str, Any]:
    offsets = []
    for token in tokens:
        offsets.append(start)
        start += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [finite(token.logprob) for token in tokens],
        "top_logprobs": [{text: finite(value) for text, value in token.top[:top]} for token in tokens] if top else None,
        "text_offset": offsets,
    }


def chat_choice(text: str, finish: str, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    message = {"role": "assistant", "content": text, "refusal": None}
    return {"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}


def chat_delta(delta: dict[str, Any], finish: str | None, logprobs: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": logprobs}


def text_choice(text: str, finish: str | None, logprobs: dict[str, Any] | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "finish_reason": finish, "logprobs": logprobs}
