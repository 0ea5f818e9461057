"""Self-Instruct (Wang et al. 2022): new tasks after the example of old ones, seeds and what was already made mixed."""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, exchange, question_of
from tuneloop.generate.structure import Shape
from tuneloop.records import Example

# Six written by people to two by the model, as in the paper.
FROM_SEEDS, FROM_POOL, NEW = 6, 2, 4


class Task(Shape):
    instruction: str
    answer: str


class Tasks(Shape):
    tasks: list[Task]


async def self_instruct(c: Candidate) -> list[Example]:
    pool = c.rng.sample(range(len(c.pool)), min(FROM_POOL, len(c.pool)))
    seeds = c.rng.sample(c.inputs.seeds, min(FROM_SEEDS + FROM_POOL - len(pool), len(c.inputs.seeds)))
    parents = [*seeds, *(c.pool[i] for i in pool)]
    c.rng.shuffle(parents)
    made = await c.ask_for(Tasks, "self_instruct", examples=[question_of(p) for p in parents], count=NEW)
    return [c.row(parents, messages=exchange(task.instruction, task.answer)) for task in made.tasks]
