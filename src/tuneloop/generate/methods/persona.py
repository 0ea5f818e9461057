"""Personas (Ge et al. 2024): who would ask this, and what else would they ask? The idea; none of the released data."""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, exchange, question_of
from tuneloop.generate.structure import Shape
from tuneloop.records import Example


class Persona(Shape):
    persona: str


class Request(Shape):
    instruction: str


async def persona(c: Candidate) -> list[Example]:
    seed = c.rng.choice(c.inputs.seeds)
    who = (await c.ask_for(Persona, "persona", text=question_of(seed))).persona
    asked = (await c.ask_for(Request, "persona_task", persona=who)).instruction
    answer = await c.ask("answer", instruction=asked)
    return [c.row([seed], messages=exchange(asked, answer), meta={"persona": who})]
