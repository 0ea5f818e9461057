"""The rows a tune was trained on, as the detectors read them: what was asked, what was answered, what the loss was."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.records import Example, read_examples
from tuneloop.store import read_table
from tuneloop.text import words


@dataclass(slots=True)
class Shown:
    """One training row. Losses are nats a token, NaN where none was kept."""

    id: str
    place: str  # file:line it came from
    line: int
    prompt: str
    answer: str
    label: str | None
    first_loss: float
    last_loss: float
    later_loss: float  # mean of all but the first time it was seen


def asked(example: Example) -> tuple[str, str]:
    """(what is asked, what is answered); text has only the second, a pair answers with what was chosen."""
    if example.messages is not None:
        last = example.messages[-1]
        if last.get("role") == "assistant":
            turns, answer = example.messages[:-1], str(last.get("content") or "")
        else:
            turns, answer = example.messages, _chosen(example)
        return "\n".join(str(m.get("content") or "") for m in turns if m.get("role") != "system"), answer
    if example.text is not None:
        return "", example.text
    return example.prompt or "", example.completion or _chosen(example)


def _chosen(example: Example) -> str:
    if isinstance(example.chosen, list):
        return str(example.chosen[-1].get("content") or "") if example.chosen else ""
    return example.chosen or ""


def read_training(data: Path, model: Path | None) -> list[Shown]:
    """The train split in its order, with the losses of `model/row_loss.parquet` where there are some."""
    losses = row_losses(model)
    found = []
    for example in read_examples(data, "train"):
        prompt, answer = asked(example)
        first, last, later = losses.get(example.id, (math.nan, math.nan, math.nan))
        source = example.source or {}
        place = f"{source.get('uri', '')}:{source.get('line', '')}"
        line = int(source.get("line") or 0)
        found.append(Shown(example.id, place, line, prompt, answer.strip(), example.label, first, last, later))
    return found


def row_losses(model: Path | None) -> dict[str, tuple[float, float, float]]:
    """Example id -> (first loss, last loss, mean after the first)."""
    path = model / "row_loss.parquet" if model else None
    if path is None or not path.is_file():
        return {}
    rows: list[dict[str, Any]] = [r for r in read_table(path).to_pylist() if r.get("last_loss") is not None]
    return {
        str(r["id"]): (float(r["first_loss"]), float(r["last_loss"]), float(r.get("later_loss", r["last_loss"])))
        for r in rows
    }


def bare(text: str) -> str:
    """Words alone: two texts with the same bare form ask the same."""
    return " ".join(words(text))
