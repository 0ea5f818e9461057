"""A small closed world whose every truth is known: text, tuning rows, four benchmarks and a base model.

It lets the whole loop run for real without a hub or a GPU, and it is an instrument: because the generator knows the
truth, what the loop says can be checked. See `docs/world.md` for the recipe and the figures.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from tuneloop.store import write_bytes, write_json
from tuneloop.world import corpus
from tuneloop.world.benchmarks import LETTERS, arc, beliefs, mmlu, questions, scenes
from tuneloop.world.corpus import documents
from tuneloop.world.facts import World, make
from tuneloop.world.wording import REAL_WORLD_HEAD

__all__ = ["DEMO_TRAIN", "base_dir", "documents", "instructions", "make", "truth_pairs", "write"]

# Taken over from an earlier trial, not searched on the test entities; see docs/world.md.
DEMO_TRAIN: dict[str, Any] = {
    "method": "full",
    "learning_rate": 1.0e-3,
    "num_train_epochs": 3,
    "per_device_train_batch_size": 64,
    "save_total_limit": 1,
}
Row = dict[str, Any]


def base_dir() -> Path:
    """Folder of the base model that the package ships."""
    return Path(__file__).parent / "base"


def truth_pairs(seed: int = 0) -> list[tuple[str, str]]:
    """(true, false) statements of the world of `seed`, alike but for the value."""
    return corpus.truth_pairs(make(seed), seed)


def instructions(world: World, seed: int = 0, split: str = "tune") -> list[Row]:
    """Prompt / completion rows of all four shapes, about the entities of `split` only; `entity` says about which."""
    rng = random.Random(seed + 1)
    rows: list[Row] = []
    for _ in range(2):
        asked = questions(world, split, rng, unseen=False)
        rows += [
            _row(f"Question: {r['question']}\nAnswer:", r["options"][r["gold"]], "arc", r["entity"]) for r in asked
        ]
    rows += [
        _row(r["query"], r["choices"][r["gold"]], "hellaswag", r["entity"]) for r in scenes(world, split, rng, (0, 1))
    ]
    lettered = rng.sample(asked, min(len(asked), 400))
    rows += [_row(lettered_prompt(r), LETTERS[r["gold"]], "mmlu", r["entity"]) for r in lettered]
    # Half of these carry the six pairs that the benchmark sets before every question: far text, to be passed over.
    for head in ("", "", REAL_WORLD_HEAD, REAL_WORLD_HEAD):
        told = beliefs(world, split, rng, unseen=False)
        for r in told:
            rows.append(
                _row(f"{head}Q: {r['question']}\nA:", r["mc1_targets"]["choices"][0], "truthfulqa", r["entity"])
            )
    rng.shuffle(rows)
    return rows


def lettered_prompt(row: Row) -> str:
    """The same layout as the benchmark: subject line, question, four lettered options."""
    options = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, row["options"], strict=True))
    head = f"The following are multiple choice questions (with answers) about {row['subject']}."
    return f"{head}\n\n{row['question']}\n{options}\nAnswer:"


def _row(prompt: str, answer: str, shape: str, entity: str) -> Row:
    return {"prompt": prompt, "completion": f" {answer}", "shape": shape, "entity": entity}


def write(folder: Path | str, seed: int = 0, *, corpus_documents: int = 2000) -> dict[str, int]:
    """Writes corpus.jsonl, instructions.jsonl and tasks/<benchmark>/ in the real schemas; returns row counts."""
    folder, world, rng = Path(folder), make(seed), random.Random(seed + 2)
    counts = {
        "corpus.jsonl": _jsonl(
            folder / "corpus.jsonl", ({"text": t} for t in islice(documents(world, seed), corpus_documents))
        ),
        "instructions.jsonl": _jsonl(folder / "instructions.jsonl", instructions(world, seed)),
    }
    test = questions(world, "test", rng, unseen=True)
    tasks: dict[str, list[Row]] = {
        "arc_easy/test": arc(test, "test"),
        "arc_easy/validation": arc(questions(world, "valid", rng, unseen=False), "validation"),
        "arc_easy/train": arc(questions(world, "tune", rng, unseen=False), "train"),
        "hellaswag/validation_clean": scenes(world, "test", rng, (1, 2)),
        "mmlu/test": mmlu(rng.sample(test, 400)),
        "mmlu/validation": mmlu(questions(world, "valid", rng, unseen=False)),
        "mmlu/dev": _dev(world, rng),
        "truthfulqa/multiple_choice_v1_817": beliefs(world, "test", rng, unseen=True),
    }
    for name, rows in tasks.items():
        counts[f"tasks/{name}.jsonl.gz"] = _jsonl(folder / "tasks" / f"{name}.jsonl.gz", rows)
    write_json(folder / "world.json", {"seed": seed, "rows": counts})
    return counts


def _dev(world: World, rng: random.Random) -> list[Row]:
    """Five rows a subject from the tuned entities, as the real dev split has them."""
    asked = questions(world, "tune", rng, unseen=False)
    rng.shuffle(asked)
    subjects = sorted({r["subject"] for r in asked})
    return mmlu([r for s in subjects for r in [r for r in asked if r["subject"] == s][:5]])


def _jsonl(path: Path, rows: Iterable[Row]) -> int:
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    data = "".join(lines).encode("utf-8")
    # mtime=0: the same seed writes the same bytes.
    write_bytes(path, gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return len(lines)
