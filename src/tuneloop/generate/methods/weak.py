"""From weak slices: what an analysis asks for, after the example of rows that went wrong.

A line of next_data.jsonl has `stage: generate`, `rows`, `slice` (its name), `budget` (rows wanted) and `why`.
Each of `rows` is the text of a prompt, or an object with `prompt` or `question`.
"""

from __future__ import annotations

from typing import Any

from tuneloop.generate.candidate import Candidate
from tuneloop.generate.structure import Shape
from tuneloop.records import Example

SHOWN, NEW = 4, 5


class Pair(Shape):
    question: str
    answer: str


class Pairs(Shape):
    rows: list[Pair]


async def weak_slices(c: Candidate) -> list[Example]:
    line = c.item(c.inputs.weak)
    shown = [text_of(row) for row in line["rows"]]
    shown = c.rng.sample(shown, min(SHOWN, len(shown)))
    name, why = str(line.get("slice") or ""), str(line.get("why") or "")
    made = await c.ask_for(Pairs, "weak", examples=shown, count=NEW, slice=name, why=why)
    meta = {"slice": name, "action": line.get("action")}
    # Completions, so that prompt and answer meet as they do where the benchmark scores them.
    rows = [row for row in made.rows if row.question not in shown]
    return [
        c.row([], kind="completion", prompt=row.question, completion=f" {row.answer.strip()}", meta=meta)
        for row in rows
    ]


def text_of(row: Any) -> str:
    if isinstance(row, dict):
        row = row.get("prompt") or row.get("question") or ""
    return str(row)
