"""A seed said otherwise: the same request in other words, or one that looks alike and has no answer."""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, Dropped, answer_of, exchange, question_of
from tuneloop.generate.structure import Shape
from tuneloop.neighbours.similar import rouge_l
from tuneloop.records import Example

# ROUGE-L F above which a paraphrase is no change.
SAME = 0.9
KINDS = {
    "no_such_thing": "it rests on something false or on something that does not exist.",
    "missing": "what is needed to answer it is missing from it.",
    "unknowable": "nobody can know the answer, such as the future or another person's private thoughts.",
    "harmful": "answering it would help to hurt someone or break the law.",
}


class Reworded(Shape):
    instruction: str


class Declined(Shape):
    question: str
    answer: str


async def paraphrase(c: Candidate) -> list[Example]:
    seed = c.item(c.inputs.seeds)
    before = question_of(seed)
    after = (await c.ask_for(Reworded, "paraphrase", instruction=before)).instruction
    closeness = rouge_l(before, after)
    if closeness > SAME:
        raise Dropped("unchanged", f"{closeness:.2f}: {after}")
    numbers = {word for word in before.split() if any(letter.isdigit() for letter in word)}
    if lost := sorted(number for number in numbers if number.strip(".,;:!?()") not in after):
        raise Dropped("lost_number", ", ".join(lost))
    return [c.row([seed], messages=exchange(after, answer_of(seed)), meta={"rouge_l": round(closeness, 3)})]


async def refusals(c: Candidate) -> list[Example]:
    seed = c.item(c.inputs.seeds)
    kind = c.rng.choice(sorted(KINDS))
    made = await c.ask_for(Declined, "refusal", instruction=question_of(seed), kind=KINDS[kind])
    return [c.row([seed], messages=exchange(made.question, made.answer), meta={"unanswerable": kind})]
