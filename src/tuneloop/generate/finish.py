"""From a method's rows to finished ones: rules, verifiers, judge. What needs the pool comes later, in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tuneloop.config.generate import GenerateConfig
from tuneloop.generate.candidate import Candidate, Dropped, checking, question_of
from tuneloop.generate.judging import judge_row
from tuneloop.generate.methods import CHOSEN
from tuneloop.generate.rules import check, final_answer
from tuneloop.generate.verify import verify
from tuneloop.records import Example


def finisher(
    make: Callable[[Candidate], Awaitable[list[Example]]], config: GenerateConfig
) -> Callable[[Candidate], Awaitable[list[Example | Dropped]]]:
    async def finish(c: Candidate) -> list[Example | Dropped]:
        done: list[Example | Dropped] = []
        for row in await make(c):
            try:
                await _look(c, row, config)
                done.append(row)
            except Dropped as found:
                done.append(found)
        return done

    return finish


async def _look(c: Candidate, row: Example, config: GenerateConfig) -> None:
    with checking():
        if broken := check(row, config.filters, refusals=config.filters.refusals and config.method != "refusals"):
            raise Dropped(*broken)
        if config.verify and config.method not in CHOSEN:
            problem = await verify(final_answer(row), None, config.verify)
            if problem is not None:
                raise Dropped("verify", problem)
    if config.judge is not None and config.method not in CHOSEN:
        await judge_row(c, row, question_of(row), final_answer(row), config.judge.minimum)
