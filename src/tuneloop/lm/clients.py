"""One question, one answer, whoever answers: a model in this process, an OpenAI-compatible server, or a script."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tuneloop.errors import PrerequisiteError
from tuneloop.lm.local import generate
from tuneloop.prompts import encode_prompt

Message = dict[str, Any]


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
class Http:
    """An OpenAI-compatible server, such as vLLM on this machine; two retries, then PrerequisiteError 211."""

    model: str
    base_url: str = "http://127.0.0.1:8000/v1"
    api_key: str = "none"
    temperature: float = 0.0
    timeout: float = 60.0

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]:
        from openai import OpenAI, OpenAIError

        client: Any = OpenAI(base_url=self.base_url, api_key=self.api_key, timeout=self.timeout, max_retries=2)
        answers = []
        for ask in asks:
            try:
                found = client.chat.completions.create(
                    model=self.model,
                    messages=as_messages(ask),
                    max_tokens=max_new_tokens,
                    temperature=self.temperature,
                )
            except OpenAIError as error:
                raise PrerequisiteError(
                    211,
                    f"the model server does not answer: {error}",
                    where=self.base_url,
                    expected=f"an OpenAI-compatible server with the model {self.model}",
                    cure="start the server or mend its address",
                ) from error
            answers.append(str(found.choices[0].message.content or ""))
        return answers


@dataclass(slots=True)
class Scripted:
    """Answers from a function of the conversation, for tests and dry runs."""

    answer: Callable[[list[Message]], str]

    def complete(self, asks: Sequence[str | list[Message]], *, max_new_tokens: int = 128) -> list[str]:
        return [self.answer(as_messages(ask)) for ask in asks]
