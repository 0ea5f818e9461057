"""Carries out the lines of the data stage: the training rows of one round become the source of the next."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tuneloop.analyze.review import as_row
from tuneloop.records import Example, read_examples
from tuneloop.rounds.reform import laid_out, reordered
from tuneloop.store import write_text
from tuneloop.text import words

Line = dict[str, Any]
CHANGES = ("dropped", "relabelled", "laid_out", "reordered")


def repaired(data: Path, lines: list[Line], out: Path, seed: int = 0) -> dict[str, int]:
    """Writes the train rows of `data` to `out` with the lines carried out.

    `drop` leaves out the rows named, `keep_one` all but one of those that answer the same to the same words, `relabel`
    gives them the answers that were found, `format` lays them out as the benchmark is, `permute_options` puts the
    right option of every lettered row in a place drawn at random. Returns {rows, dropped, relabelled, laid_out,
    reordered}.
    """
    wanted = [line for line in lines if line["stage"] == "data"]
    drop, answers = _wishes(data, wanted)
    layouts = {key: (line["old"], line["new"]) for line in wanted if line["action"] == "format" for key in line["rows"]}
    turn = any(line["action"] == "permute_options" for line in wanted)
    counts = Counter(dict.fromkeys(("rows", *CHANGES), 0))
    text = []
    for example in read_examples(data, "train"):
        if example.id in drop:
            counts["dropped"] += 1
            continue
        row = laid_out(example, *layouts[example.id]) if example.id in layouts else example
        counts["laid_out"] += row != example
        last = reordered(row, seed) if turn else row
        counts["reordered"] += last != row
        said = answers.get(example.id, "")
        counts["relabelled"] += bool(said)
        counts["rows"] += 1
        text.append(json.dumps(as_row(last, said), ensure_ascii=False) + "\n")
    write_text(out, "".join(text))
    return dict(counts)


def halvings(lines: list[Line]) -> int:
    """How often the learning rate is to be halved: once, however many findings ask for it."""
    return int(any(line["stage"] == "train" and line["action"] == "halve" for line in lines))


def _wishes(data: Path, lines: list[Line]) -> tuple[set[str], dict[str, str]]:
    drop: set[str] = set()
    answers: dict[str, str] = {}
    for line in lines:
        if line["action"] == "drop":
            drop |= set(line["rows"])
        if line["action"] == "keep_one":
            drop |= _copies(data, set(line["rows"]))
        if line["action"] == "relabel":
            answers |= {key: said for key, said in line["answers"].items() if said}
    return drop, answers


def _copies(data: Path, named: set[str]) -> set[str]:
    """Of these rows, all but the shortest of those with one answer whose words hold those of the shortest."""
    rows = [e for e in read_examples(data, "train") if e.id in named]
    rows.sort(key=lambda e: len(_asked(e)))
    kept: list[tuple[set[str], str]] = []
    gone = set()
    for example in rows:
        spoken, said = set(words(_asked(example))), json.dumps(as_row(example).get("completion") or example.label)
        if any(said == other and known <= spoken for known, other in kept):
            gone.add(example.id)
        else:
            kept.append((spoken, said))
    return gone


def _asked(example: Example) -> str:
    return example.prompt or " ".join(str(m.get("content") or "") for m in (example.messages or [])[:-1])
