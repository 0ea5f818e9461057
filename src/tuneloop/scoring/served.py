"""Log-likelihoods from an OpenAI-compatible server that returns the prompt's log-probabilities, such as vLLM."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tuneloop.console import progress
from tuneloop.errors import DataError, PartialError, PrerequisiteError
from tuneloop.scoring.score import OptionScore
from tuneloop.store import append_jsonl, read_jsonl, sha256_text

CHUNK = 16  # prompts in one request; options of a question stay together, so that the server's prefix cache serves them


@dataclass(slots=True)
class Served:
    """`journal` keeps every score as it comes: a server that dies half-way costs one chunk.

    Trailing blanks of a prompt count to the continuation, as everywhere. The server cuts nothing: a prompt that is too
    long for it is an error. Raises PrerequisiteError 211 or 212, DataError 378 or 379, PartialError 430.
    """

    model: str
    base_url: str
    journal: Path
    api_key: str = "none"
    timeout: float = 120.0

    def score(self, requests: Sequence[tuple[str, list[str]]], description: str = "scoring") -> list[list[OptionScore]]:
        asked = [(prompt, text) for prompt, texts in requests for text in texts]
        settings = {"max_tokens": 1, "echo": True, "logprobs": 1}
        raw = self._all(asked, settings, description)
        found = iter(
            OptionScore(**value) if "logprob" in value else _dead(pair) for pair, value in zip(asked, raw, strict=True)
        )
        return [[next(found) for _ in texts] for _, texts in requests]

    def write(self, prompts: Sequence[str], *, max_new_tokens: int, stop: Sequence[str]) -> list[str]:
        """Greedy continuations, cut at the first stop string."""
        settings = {"max_tokens": max_new_tokens, "stop": list(stop)[:4] or None}
        raw = self._all([(prompt, "") for prompt in prompts], settings, "writing")
        texts = [str(value["text"]) for value in raw]
        return [text[: min([text.find(s) for s in stop if s in text], default=len(text))] for text in texts]

    def _all(self, asked: list[tuple[str, str]], settings: dict[str, Any], description: str) -> list[dict[str, Any]]:
        keys = [sha256_text(f"{settings}|{prompt}|{text}")[:32] for prompt, text in asked]
        known = {line["key"]: line["value"] for line in read_jsonl(self.journal)} if self.journal.is_file() else {}
        missing = [i for i, key in enumerate(dict.fromkeys(keys)) if key not in known]
        first = dict(zip(reversed(keys), reversed(asked), strict=True))
        order = list(dict.fromkeys(keys))
        with progress(description, len(missing)) as bar:
            for at in range(0, len(missing), CHUNK):
                chunk = [order[i] for i in missing[at : at + CHUNK]]
                try:
                    values = list(self._ask([first[key] for key in chunk], settings))
                except PrerequisiteError as error:
                    if error.number != 211 or not known:
                        raise
                    raise PartialError(
                        430, f"the server stopped after {len(known):,} of {len(order):,} answers: {error.what}",
                        where=error.where, expected="an answer to every row; those that came are kept",
                        cure="mend the server and run the same command again: it goes on where it stopped",
                    ) from error  # fmt: skip
                for key, value in zip(chunk, values, strict=True):
                    append_jsonl(self.journal, {"key": key, "value": value})
                    known[key] = value
                bar.advance(len(chunk))
        return [known[key] for key in keys]

    def _ask(self, pairs: list[tuple[str, str]], settings: dict[str, Any]) -> Iterator[dict[str, Any]]:
        from openai import BadRequestError, OpenAI, OpenAIError

        client: Any = OpenAI(base_url=self.base_url, api_key=self.api_key, timeout=self.timeout, max_retries=2)
        try:
            reply = client.completions.create(
                model=self.model, prompt=[p + t for p, t in pairs], temperature=0.0, **settings
            )
        except BadRequestError as error:
            raise DataError(
                379, f"the server refuses a prompt: {error.message}", where=f"{pairs[0][0][-80:]!r} or one near it",
                expected="a prompt that fits its context", cure="fewer shots, or a server with more room",
            ) from error  # fmt: skip
        except OpenAIError as error:
            raise PrerequisiteError(
                211, f"the model server does not answer: {error}", where=self.base_url,
                expected=f"an OpenAI-compatible server with the model {self.model}",
                cure="start the server or mend its address",
            ) from error  # fmt: skip
        choices = sorted(reply.choices, key=lambda choice: choice.index)
        if len(choices) != len(pairs):
            raise self._silent(f"{len(choices)} answers to {len(pairs)} prompts")
        for (prompt, text), choice in zip(pairs, choices, strict=True):
            yield self._read(prompt, text, choice) if settings.get("echo") else {"text": choice.text}

    def _read(self, prompt: str, text: str, choice: Any) -> dict[str, Any]:
        logs = choice.logprobs
        if logs is None or not logs.token_logprobs or not logs.text_offset:
            raise self._silent("no log-probabilities of the prompt")
        ahead = _ahead(logs.tokens, logs.text_offset, prompt)
        told = "".join(logs.tokens)[ahead:]
        if "\ufffd" not in told and not _squeezed(told).startswith(_squeezed(prompt + text)):
            raise self._silent(f"tokens that do not spell the prompt: {told[:60]!r}")
        start, stop = len(prompt.rstrip()), len(prompt + text)
        values: list[Any] = []
        greedy, spans, before = True, False, 0
        for i, (token, value, place) in enumerate(zip(logs.tokens, logs.token_logprobs, logs.text_offset, strict=True)):
            offset = place - ahead
            if offset >= stop or offset + len(token) <= start:
                before += offset < start
                continue
            spans = spans or offset < start
            values.append(value)
            top = (logs.top_logprobs or [])[i : i + 1]
            greedy = greedy and bool(top and top[0] and token in top[0] and top[0][token] >= max(top[0].values()))
        if not values or None in values:
            raise self._silent("no log-probability of the first token: the prompt is empty")
        if not all(math.isfinite(value) for value in values):
            return {"broken": True}
        return asdict(OptionScore(math.fsum(values), len(values), greedy, False, spans, before))

    def _silent(self, what: str) -> PrerequisiteError:
        return PrerequisiteError(
            212, f"the server gave {what}", where=self.base_url,
            expected="/completions with echo and logprobs, as vLLM has it",
            cure="use such a server, or load the model here",
        )  # fmt: skip


def _ahead(tokens: list[str], offsets: list[int], prompt: str) -> int:
    """Characters of a token before the prompt (`<s>`) that the server counts in its offsets, as vLLM does."""
    first = tokens[0]
    counted = bool(first) and len(offsets) > 1 and offsets[1] - offsets[0] == len(first)
    word = first.strip()
    known = not word or "\ufffd" in word or prompt.lstrip().startswith(word)
    return len(first) if counted and not known else 0


def _squeezed(text: str) -> str:
    return "".join(text.split())


def _dead(pair: tuple[str, str]) -> OptionScore:
    raise DataError(
        378, "a log-likelihood is not finite", where=repr(pair[1][:60]), expected="finite numbers",
        cure="the weights hold NaN or overflow: check the training, or serve in float32",
    )  # fmt: skip
