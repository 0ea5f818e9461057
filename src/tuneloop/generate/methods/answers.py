"""Several answers to one prompt: the best is kept (`regenerate`), or the best beside the worst (`preference`)."""

from __future__ import annotations

import asyncio

from tuneloop.generate.candidate import Candidate, Dropped, checking, exchange, question_of
from tuneloop.generate.judging import grade
from tuneloop.generate.verify import verify
from tuneloop.records import Example

# Answers to choose from must differ: a cold teacher would give the same one n times.
LEAST_TEMPERATURE = 0.7
# Grades from 0 to 1 that differ by less say nothing: one step on one of three criteria is 1/12.
MARGIN = 0.1


async def _graded(c: Candidate, seed: Example) -> list[tuple[float, int, str]]:
    """(score, number, answer), best first, the earlier first among equals. Verifiers outrank the judge."""
    prompt = question_of(seed)
    warm = max(LEAST_TEMPERATURE, c.config.teacher.temperature)
    asked = (c.ask("answer", vary=i, temperature=warm, instruction=prompt) for i in range(c.config.best_of))
    answers = list(dict.fromkeys([text.strip() for text in await asyncio.gather(*asked) if text.strip()]))
    if c.config.verify:
        with checking():
            found = [await verify(answer, seed, c.config.verify) for answer in answers]
        scores: list[float | None] = [0.0 if problem else 1.0 for problem in found]
    else:
        scores = await grade(c, [(prompt, answer) for answer in answers])
    graded = [(s, -i, a) for i, (s, a) in enumerate(zip(scores, answers, strict=True)) if s is not None]
    if answers and not graded:
        raise Dropped("judge_unread", answers[0])
    return sorted(graded, reverse=True)


async def regenerate(c: Candidate) -> list[Example]:
    seed = c.item(c.inputs.seeds)
    ranked = await _graded(c, seed)
    if not ranked or ranked[0][0] == 0:
        raise Dropped("verify", ranked[0][2] if ranked else "no answer")
    score, _, answer = ranked[0]
    meta = {"answers": len(ranked)}
    return [c.row([seed], messages=exchange(question_of(seed), answer), scores={"best_of": score}, meta=meta)]


async def preference(c: Candidate) -> list[Example]:
    seed = c.item(c.inputs.seeds)
    ranked = await _graded(c, seed)
    if len(ranked) < 2:
        raise Dropped("same_answers", ranked[0][2] if ranked else "")
    (best, _, chosen), (worst, _, rejected) = ranked[0], ranked[-1]
    if best - worst < MARGIN:
        raise Dropped("no_margin", f"{best:.2f} and {worst:.2f}")
    prompt = [{"role": "user", "content": question_of(seed)}]
    sides = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
    scores = {"chosen": best, "rejected": worst}
    return [c.row([seed], kind="preference", messages=prompt, scores=scores, chosen=next(sides), rejected=next(sides))]
