"""From weak slices: what an analysis asks for, after the example of rows that went wrong.

A line of next_data.jsonl has `stage: generate`, `rows`, `slice` (its name), `budget` (rows wanted) and `why`.
Each of `rows` is the text of a prompt, or an object with `prompt` or `question`, and perhaps the `answer` that was due.
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
    rows = line["rows"]
    examples = [shown(row) for row in c.rng.sample(rows, min(SHOWN, len(rows)))]
    name, why = str(line.get("slice") or ""), str(line.get("why") or "")
    made = await c.ask_for(Pairs, "weak", examples=examples, count=NEW, slice=name, why=why)
    meta = {"slice": name, "action": line.get("action")}
    # Completions, so that prompt and answer meet as they do where the benchmark scores them.
    known = {text for text, _ in map(shown, rows)}
    rows = [row for row in made.rows if row.question not in known]
    return [
        c.row([], kind="completion", prompt=row.question, completion=f" {row.answer.strip()}", meta=meta)
        for row in rows
    ]


def shown(row: Any) -> tuple[str, str]:
    """(prompt, the answer that was due or '') of a row as an analysis names it."""
    if not isinstance(row, dict):
        return str(row), ""
    return str(row.get("prompt") or row.get("question") or ""), str(row.get("answer") or "")
