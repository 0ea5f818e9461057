"""Answers from a server: each is kept as it comes, so that one that dies half-way costs only what was under way."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.evaluate.prompting import THINK
from tuneloop.evaluate.split import Split
from tuneloop.evaluate.thinking import TEMPERATURE, vote
from tuneloop.evaluate.written import Answer, Writer, normal
from tuneloop.lm import Answer as Said
from tuneloop.lm import Ask, Failed, Http
from tuneloop.lm.kept import ask_all
from tuneloop.records import Example

MARK = "Answer:"


def endpoint_writer(split: Split, lm: Http, kept: Path) -> Writer:
    """Writes with a server; what stands in the journal `kept` is not asked again. See `lm.kept` for the errors."""

    def write(examples: Sequence[Example], room: int) -> list[Answer]:
        prompting = split.prompting
        room = room + split.config.thought_tokens if prompting.thinks else room
        asks = [ask for e in examples for ask in _asks(split, e, room)]
        texts = ask_all(lm, asks, kept)
        step = prompting.samples
        return [_answer(split, asks[i * step], texts[i * step : (i + 1) * step]) for i in range(len(examples))]

    return write


def _answer(split: Split, ask: Ask, found: Sequence[Said | Failed]) -> Answer:
    said = [t.text if isinstance(t, Said) else "" for t in found]
    answers = [behind_mark(t) if split.prompting.thinks else t.strip() for t in said]
    prompt = "\n".join(f"{m['role']}: {m['content']}" for m in ask.messages)
    answer = Answer(answers[vote(answers, normal(split))], prompt)
    answer.prompt_tokens = _total([t.prompt_tokens if isinstance(t, Said) else None for t in found])
    answer.answer_tokens = _total([t.completion_tokens if isinstance(t, Said) else None for t in found])
    answer.truncated = any(isinstance(t, Said) and t.finish == "length" for t in found)
    answer.samples = said if split.prompting.thinks else []
    return answer


def _total(counts: Sequence[int | None]) -> int | None:
    return None if any(c is None for c in counts) else sum(c for c in counts if c is not None)


def _asks(split: Split, example: Example, room: int) -> list[Ask]:
    messages, samples = tuple(_messages(split, example)), split.prompting.samples
    if samples == 1:
        return [Ask(messages=messages, max_new_tokens=room)]
    seeds = range(split.config.seed, split.config.seed + samples)
    return [Ask(messages=messages, max_new_tokens=room, temperature=TEMPERATURE, seed=seed) for seed in seeds]


def _messages(split: Split, example: Example) -> list[dict[str, Any]]:
    shown = split.shown(example)
    messages = [dict(m) for m in (shown.messages or [])[:-1]] or [{"role": "user", "content": shown.prompt or ""}]
    messages = [{k: v for k, v in m.items() if k != "weight"} for m in messages]
    if split.prompting.thinks:
        last = messages[-1]
        last["content"] = f"{last['content']}\n\n{THINK} End with a line '{MARK} ...'."
    return messages


def behind_mark(text: str) -> str:
    """What follows the last mark, on its line; the last line where the mark is missing."""
    tail = text.rpartition(MARK)[2].strip() if MARK in text else text.strip()
    lines = tail.splitlines()
    return (lines[0] if MARK in text else lines[-1]).strip() if lines else ""
