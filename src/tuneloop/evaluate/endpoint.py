"""Answers from a server: each is kept as it comes, so that one that dies half-way costs only what was under way."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.console import progress, warn
from tuneloop.errors import PartialError, PrerequisiteError
from tuneloop.evaluate.prompting import THINK
from tuneloop.evaluate.split import Split
from tuneloop.evaluate.thinking import TEMPERATURE, vote
from tuneloop.evaluate.written import Answer, Writer, normal
from tuneloop.lm import Answer as Said
from tuneloop.lm import Ask, Failed, Http
from tuneloop.lm.caller import Caller
from tuneloop.lm.journal import Journal
from tuneloop.lm.limiter import Limiter
from tuneloop.records import Example

MARK = "Answer:"
AT_ONCE = 32
FIRST_WAIT_S = 0.5


def endpoint_writer(split: Split, lm: Http, kept: Path) -> Writer:
    """Writes with a server; what stands in the journal `kept` is not asked again.

    A row that the server refuses has an empty answer, and is counted. Raises PartialError 430 when the server stops
    answering, PrerequisiteError 211 when it never did.
    """

    def write(examples: Sequence[Example], room: int) -> list[Answer]:
        prompting = split.prompting
        room = room + split.config.thought_tokens if prompting.thinks else room
        asks = [ask for e in examples for ask in _asks(split, e, room)]
        texts = asyncio.run(_all(lm, asks, kept))
        refused = sum(isinstance(t, Failed) for t in texts)
        if refused:
            first = next(t for t in texts if isinstance(t, Failed))
            warn(f"the server refused {refused:,} of {len(texts):,} requests, which count as empty: {first.what}")
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


async def _all(lm: Http, asks: list[Ask], kept: Path) -> list[Said | Failed]:
    journal = Journal(kept)
    caller = Caller(lm, journal, Limiter(AT_ONCE), first_wait_s=FIRST_WAIT_S)
    try:
        with progress("asking the server", len(asks)) as bar:

            async def one(ask: Ask) -> Said | Failed:
                try:
                    return await caller(ask)
                except Failed as failure:
                    if failure.kind != "request":
                        raise
                    return failure
                finally:
                    bar.advance()

            tasks = [asyncio.ensure_future(one(ask)) for ask in asks]
            try:
                found = list(await asyncio.gather(*tasks))
            except (Failed, PrerequisiteError) as error:
                caller.stop()
                await asyncio.gather(*tasks, return_exceptions=True)
                raise _stopped(lm, journal, len(asks), error) from error
        if asks and all(isinstance(f, Failed) for f in found):
            raise _never(lm, str(found[0]))
        return found
    finally:
        journal.close()
        await lm.close()


def _stopped(lm: Http, journal: Journal, asked: int, error: Exception) -> PartialError | PrerequisiteError:
    if not journal.answers:
        return _never(lm, str(error).splitlines()[0])
    return PartialError(
        430, f"the server stopped after {len(journal.answers):,} of {asked:,} answers: {str(error).splitlines()[0]}",
        where=lm.base_url, expected="an answer to every row; those that came are kept",
        cure="mend the server and run the same command again: it goes on where it stopped",
    )  # fmt: skip


def _never(lm: Http, what: str) -> PrerequisiteError:
    return PrerequisiteError(
        211, f"the model server does not answer: {what}", where=lm.base_url,
        expected=f"an OpenAI-compatible server with the model {lm.name}", cure="start the server or mend its address",
    )  # fmt: skip
