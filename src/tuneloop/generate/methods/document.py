"""Questions from documents: each answer is proven by words that stand in the passage."""

from __future__ import annotations

from tuneloop.generate.candidate import Candidate, Dropped, exchange
from tuneloop.generate.structure import Shape
from tuneloop.generate.verify import span_in
from tuneloop.records import Example


class Grounded(Shape):
    question: str
    answer: str
    quote: str


async def document(c: Candidate) -> list[Example]:
    name, passage = c.item(c.inputs.documents)
    made = await c.ask_for(Grounded, "document", passage=passage)
    span = span_in(made.quote, passage)
    if span is None:
        raise Dropped("quote", made.quote)
    meta = {"quote": made.quote, "span": list(span), "document": name}
    return [c.row([name], messages=exchange(made.question, made.answer), meta=meta)]
