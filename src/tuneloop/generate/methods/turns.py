"""Conversations of several turns: the teacher plays both sides, from a seed on."""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, answer_of, exchange, question_of
from tuneloop.generate.structure import Shape
from tuneloop.records import Example


class FollowUp(Shape):
    message: str


async def multi_turn(c: Candidate) -> list[Example]:
    seed = c.item(c.inputs.seeds)
    turns = exchange(question_of(seed), answer_of(seed))
    for number in range(1, c.config.turns):
        asked = (await c.ask_for(FollowUp, "follow_up", vary=2 * number, turns=turns)).message
        turns.append({"role": "user", "content": asked})
        reply = await c.send("answer", turns, vary=2 * number + 1)
        turns.append({"role": "assistant", "content": reply.text.strip()})
    return [c.row([seed], messages=turns, meta={"turns": c.config.turns})]
