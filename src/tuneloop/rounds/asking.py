"""New rows for a round from a teacher: what the findings ask for, or, for the control arm, more of the same."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tuneloop.analyze.training import asked
from tuneloop.config import LoopConfig
from tuneloop.records import Example, read_examples
from tuneloop.store import write_text

SHOWN_AT_RANDOM = 200


def teacher_writer(config: LoopConfig, data: Path) -> Any:
    """A `Writer` over the generate stage with the teacher of `generate`; `data` is the data folder of round 0."""

    def write(lines: list[dict[str, Any]], most: int, folder: Path) -> list[Example]:
        from tuneloop.generate import generate
        from tuneloop.teacher import open_teacher, prepare_seeds

        usable = [line for line in lines if line.get("rows")]
        if lines and not usable:
            return []
        wanted = folder / "asked.jsonl"
        told = usable or [at_random(data, most, config.generate.seed)]
        write_text(wanted, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in told))
        limits = config.generate.limits.model_copy(update={"rows": most})
        wish = {"limits": limits, "method": "weak_slices", "seeds": [], "weak": str(wanted)}
        settings = config.generate.model_copy(update=wish)
        out = generate(settings, open_teacher(settings.teacher), folder / "generated", prepare=prepare_seeds)
        made = read_examples(prepare_seeds([str(out / "rows.jsonl")], folder / "read"), "train")
        labels = {example.label for example in read_examples(data, "train") if example.label}
        return (labelled(made, labels) if labels else made)[:most]

    return write


def at_random(data: Path, most: int, seed: int) -> dict[str, Any]:
    """The control arm's line: the same teacher, prompt and layout, after training rows of every kind."""
    rows = read_examples(data, "train")
    pairs = [asked(row) for row in random.Random(seed).sample(rows, min(SHOWN_AT_RANDOM, len(rows)))]
    shown = [{"question": prompt, "answer": answer} for prompt, answer in pairs if prompt]
    return {"stage": "generate", "action": "control", "slice": "", "rows": shown, "budget": most}


def labelled(made: list[Example], labels: set[str]) -> list[Example]:
    """Written rows as rows of a classification; an answer that is no label of the data is left out."""
    found = []
    for example in made:
        text, said = asked(example)
        if said.strip() in labels:
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": said.strip()}]
            found.append(Example(id=example.id, kind="classification", messages=turns, label=said.strip()))
    return found
