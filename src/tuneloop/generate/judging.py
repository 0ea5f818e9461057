"""Grades by the rubric judge that evaluation uses, asked through the run's own journal and limiter."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tuneloop.generate.candidate import Candidate, Dropped
from tuneloop.judge import Case, Judged, read_rubric, rubric_prompt
from tuneloop.records import Example

JUDGE_TOKENS = 256


async def _judge(c: Candidate, question: str, answer: str) -> Judged:
    return read_rubric(await c.ask_judge(rubric_prompt(Case(question, answer)), JUDGE_TOKENS))


async def grade(c: Candidate, pairs: Sequence[tuple[str, str]]) -> list[float | None]:
    """A grade from 0 to 1 for each (question, answer); None where the judge could not be read."""
    judged = await asyncio.gather(*(_judge(c, question, answer) for question, answer in pairs))
    return [found.score for found in judged]


async def judge_row(c: Candidate, row: Example, question: str, answer: str, minimum: float) -> None:
    """Stores every sub-score on the row and drops what is below the minimum, or what the judge did not grade."""
    found = await _judge(c, question, answer)
    if found.score is None:
        raise Dropped("judge_unread", found.raw)
    row.scores |= {f"judge_{name}": value for name, value in found.parts.items()} | {"judge": found.score}
    if row.generator is not None:
        row.generator["judge"] = c.shop.judge.name
    if found.score < minimum:
        raise Dropped("judge", f"{found.score:.2f}: {found.parts}")
