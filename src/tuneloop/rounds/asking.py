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
        return read_examples(prepare_seeds([str(out / "rows.jsonl")], folder / "read"), "train")[:most]

    return write


def at_random(data: Path, most: int, seed: int) -> dict[str, Any]:
    """The control arm's line: the same teacher, prompt and layout, after training rows of every kind."""
    rows = read_examples(data, "train")
    pairs = [asked(row) for row in random.Random(seed).sample(rows, min(SHOWN_AT_RANDOM, len(rows)))]
    shown = [{"question": prompt, "answer": answer} for prompt, answer in pairs if prompt]
    return {"stage": "generate", "action": "control", "slice": "", "rows": shown, "budget": most}
