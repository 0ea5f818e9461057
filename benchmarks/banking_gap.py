"""Real rows with a known fault: Banking77, 8 of its 77 intents cut to 3 rows each, 5 % of the labels flipped.

Do the findings name the starved intents, and are the flipped rows recovered? One tune of a 260k-parameter model; the
rows that were cut are the pool of the loop's second round. Prints one JSON object as its last line.

    TUNELOOP_DATA=... TUNELOOP_MODELS=... python benchmarks/banking_gap.py
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from tuneloop import console
from tuneloop.config import LoopConfig
from tuneloop.rounds import run_rounds
from tuneloop.store import read_json, write_json, write_text

STARVED, LEFT, FLIPPED = 8, 3, 0.05
Row = dict[str, str]


def read(name: str) -> list[Row]:
    with gzip.open(
        Path(os.environ["TUNELOOP_DATA"]) / "banking77" / f"{name}.jsonl.gz", "rt", encoding="utf-8"
    ) as file:
        return [json.loads(line) for line in file]


def spoil(train: list[Row], seed: int) -> tuple[list[Row], list[Row], list[str], list[int]]:
    """(training rows, pool, starved intents, lines of training rows whose label was flipped, from 1)."""
    rng = random.Random(seed)
    names = sorted({row["label"] for row in train})
    starved = sorted(rng.sample(names, STARVED))
    rows = list(train)
    rng.shuffle(rows)
    left: Counter[str] = Counter()
    kept, pool = [], []
    for row in rows:
        left[row["label"]] += 1
        (pool if row["label"] in starved and left[row["label"]] > LEFT else kept).append(dict(row))
    # The pool also holds rows of other intents, so that the control arm has something else to draw.
    spare = [i for i, row in enumerate(kept) if row["label"] not in starved]
    out = set(rng.sample(spare, len(pool)))
    pool += [row for i, row in enumerate(kept) if i in out]
    kept = [row for i, row in enumerate(kept) if i not in out]
    flipped = sorted(rng.sample(range(len(kept)), round(FLIPPED * len(kept))))
    for i in flipped:
        kept[i]["label"] = rng.choice([n for n in names if n != kept[i]["label"]])
    rng.shuffle(pool)
    return kept, pool, starved, [i + 1 for i in flipped]


def config(folder: Path, epochs: float) -> LoopConfig:
    lines = {"near_duplicates": False, "valid_fraction": 0, "decontaminate": []}
    train = {"method": "full", "learning_rate": 3e-3, "num_train_epochs": epochs, "per_device_train_batch_size": 64}
    return LoopConfig.model_validate(
        {
            "model": {"name": "karpathy/stories260K", "template": "plain"},
            "data": {"source": [str(folder / "train.jsonl")], "test": [str(folder / "test.jsonl")], **lines},
            "train": train | {"save_total_limit": 1},
            "eval": {"metrics": ["accuracy"], "generate_limit": 0},
            "rounds": {"pool": [str(folder / "pool.jsonl")], "budget": 800},
        }
    )


def write(path: Path, rows: list[Row]) -> None:
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def found_rows(finding: dict[str, Any] | None, flipped: list[int]) -> dict[str, float]:
    named = {int(place.rpartition(":")[2]) for place in (finding or {}).get("rows", [])}
    hit = len(named & set(flipped))
    shares = {"precision": round(hit / max(1, len(named)), 4), "recall": round(hit / len(flipped), 4)}
    return {"named": len(named), "hit": hit, "planted": len(flipped), **shares}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tests", type=int, default=1540, help="test rows, spread evenly over the intents")
    parser.add_argument("--quick", action="store_true", help="one round of one epoch on 770 test rows")
    parser.add_argument("--cache", type=Path, default=Path("runs/banking_gap"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    if options.quick:
        options.epochs, options.tests, options.rounds = 1, 770, 1
    started = time.monotonic()
    kept, pool, starved, flipped = spoil(read("train"), options.seed)
    test = read("test")
    random.Random(options.seed).shuffle(test)
    seen: Counter[str] = Counter()
    chosen = [r for r in test if seen.update([r["label"]]) or seen[r["label"]] <= options.tests // 77]
    for name, rows in (("train", kept), ("pool", pool), ("test", chosen)):
        write(options.cache / f"{name}.jsonl", rows)
    console.set_mode(quiet=True)
    run_rounds(config(options.cache, options.epochs), options.cache / "loop", options.rounds)
    findings = read_json(options.cache / "loop" / "round-0" / "analysis" / "tune" / "findings.json")["findings"]
    first = {f["cause"]: f for f in reversed(findings)}
    names = set(first.get("missing coverage", {}).get("names", []))
    found: dict[str, Any] = {
        "starved_named": len(names & set(starved)), "starved": STARVED, "others_named": len(names - set(starved)),
        "flipped": found_rows(first.get("flipped labels"), flipped), "findings": [f["what"] for f in findings],
        "verdict": read_json(options.cache / "loop" / "loop.json")["verdict"],
        "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    if options.out:
        write_json(options.out, {"command": " ".join(sys.argv), **found})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
