"""Evol-Instruct (Xu et al. 2023): an instruction is made harder or other, and failed evolutions are eliminated."""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, Dropped, exchange, question_of
from tuneloop.generate.structure import Shape
from tuneloop.records import Example

# The five mutations in depth and the one in breadth of the paper.
OPERATIONS = {
    "constrain": "Add one more constraint or requirement.",
    "deepen": "Ask about the same thing in more depth and breadth.",
    "concretise": "Replace general ideas by more specific ones.",
    "reason": "If it can be answered in one step, make it need several steps of reasoning.",
    "complicate": "Add a piece of input to work with: a table, code, a list or figures, written out in full.",
    "broaden": "Make it a new, rarer instruction of the same field and of similar length and difficulty.",
}
# Words that leak from the prompt into failed evolutions (the paper's fourth rule of elimination).
LEAKS = ("given instruction", "new instruction", "#rewritten", "given prompt", "rewritten prompt")
MORE_WORDS = 20


class Evolved(Shape):
    instruction: str


class Check(Shape):
    equal: bool


def _parent(c: Candidate) -> Example:
    """A seed, or a row that is not yet the last generation."""
    for _ in range(20):
        at = c.rng.randrange(len(c.inputs.seeds) + len(c.pool))
        if at < len(c.inputs.seeds):
            return c.inputs.seeds[at]
        row = c.pool[at - len(c.inputs.seeds)]
        if row.meta.get("generation", 0) < c.config.evolutions:
            return row
    return c.rng.choice(c.inputs.seeds)


async def evolve(c: Candidate) -> list[Example]:
    parent = _parent(c)
    before = question_of(parent)
    operation = c.rng.choice(sorted(OPERATIONS))
    made = await c.ask_for(Evolved, "evolve", instruction=before, operation=OPERATIONS[operation], words=MORE_WORDS)
    after = made.instruction
    if leak := next((word for word in LEAKS if word in after.lower()), None):
        raise Dropped("eliminated", f"speaks of its prompt: {leak}")
    if (await c.ask_for(Check, "evolve_check", before=before, after=after)).equal:
        raise Dropped("eliminated", "asks for the same as its parent")
    answer = await c.ask("answer", instruction=after)
    # The paper's second and third rule: the model cannot answer it, or says nothing.
    if "sorry" in answer.lower() and len(answer.split()) < 80:
        raise Dropped("eliminated", f"no answer: {answer}")
    if not any(letter.isalnum() for letter in answer):
        raise Dropped("eliminated", "an empty answer")
    meta = {"operation": operation, "generation": int(parent.meta.get("generation", 0)) + 1}
    return [c.row([parent], messages=exchange(after, answer), meta=meta)]
