"""New rows for a round from a teacher: what the findings ask for, or, for the control arm, more of the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneloop.analyze.training import asked
from tuneloop.config import LoopConfig
from tuneloop.records import Example, read_examples
from tuneloop.store import write_text


def teacher_writer(config: LoopConfig, seeds: Path) -> Any:
    """A `Writer` over the generate stage with the teacher of `generate`; `seeds` is the data folder of round 0."""

    def write(lines: list[dict[str, Any]], most: int, folder: Path) -> list[Example]:
        from tuneloop.generate import generate
        from tuneloop.teacher import open_teacher, prepare_seeds

        limits = config.generate.limits.model_copy(update={"rows": most})
        usable = [line for line in lines if line.get("rows")]
        if lines and not usable:
            return []
        wish: dict[str, Any] = {"limits": limits, "method": "self_instruct", "seeds": [str(seeds)], "weak": None}
        if usable:
            wanted = folder / "asked.jsonl"
            write_text(wanted, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in usable))
            wish |= {"method": "weak_slices", "seeds": [], "weak": str(wanted)}
        settings = config.generate.model_copy(update=wish)
        out = generate(settings, open_teacher(settings.teacher), folder / "generated", prepare=prepare_seeds)
        made = read_examples(prepare_seeds([str(out / "rows.jsonl")], folder / "read"), "train")
        labels = {example.label for example in read_examples(seeds, "train") if example.label}
        return (labelled(made, labels) if labels else made)[:most]

    return write


def labelled(made: list[Example], labels: set[str]) -> list[Example]:
    """Written rows as rows of a classification; an answer that is no label of the data is left out."""
    found = []
    for example in made:
        text, said = asked(example)
        if said.strip() in labels:
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": said.strip()}]
            found.append(Example(id=example.id, kind="classification", messages=turns, label=said.strip()))
    return found
