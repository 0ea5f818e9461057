"""Does the loop mend a planted gap, and more than as many random rows would? On the reporting half, seed by seed.

A relation of the embedded world is missing from the tuning rows; a pool of clean rows of every kind lies aside. The
loop finds the gap on one half of the test and takes rows from the pool; the control arm takes as many at random. Both
are judged on the other half, which is scored once. Prints one JSON object as its last line.

    python benchmarks/loop_gap.py --seeds 20-24
    python benchmarks/loop_gap.py --seeds 20-24 --teacher     without a pool: the scripted teacher writes the rows, for
                                                              the control arm after training rows drawn at random
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from causes import TRAIN

from tuneloop import console
from tuneloop.config import LoopConfig
from tuneloop.rounds import run_rounds
from tuneloop.stats import mean_interval
from tuneloop.store import read_json, write_json
from tuneloop.world.plant import plant

BUDGET = 60


def config(world: Path, teacher: bool) -> LoopConfig:
    data = {"source": [str(world / "train.jsonl")], "test_fraction": 0, "valid_fraction": 0, "near_duplicates": False}
    names = ("questions", "scenes", "statements")
    tasks = [{"task": "hellaswag", "data": str(world / "tasks" / n), "name": n} for n in names]
    source: dict[str, Any] = {"rounds": {"pool": [str(world / "pool.jsonl")], "budget": BUDGET}}
    if teacher:
        # Questions of the world are alike by design: only exact repeats are dropped.
        filters = {"similarity": None, "near_duplicate": None}
        generate = {"method": "weak_slices", "teacher": {"name": "world"}, "filters": filters, "per_input": 3}
        source = {"rounds": {"budget": BUDGET}, "generate": generate}
    return LoopConfig.model_validate(
        {
            "model": {"name": "world", "template": "plain"},
            "data": data,
            "train": TRAIN.model_dump(exclude_unset=True),
            "eval": {"tasks": tasks, "test_split": False},
            **source,
        }
    )


def one(seed: int, cache: Path, teacher: bool) -> dict[str, Any]:
    started, out = time.monotonic(), cache / f"{seed:03d}"
    plant(out / "world", seed, ("missing relation",), "high")
    truth = read_json(out / "world" / "truth.json")
    run_rounds(config(out / "world", teacher), out / "loop", 2)
    verdict = read_json(out / "loop" / "loop.json")["verdict"]
    marked = set(truth["defects"]["missing relation"]["test"]["questions"])
    scores = {name: on_relation(out / "loop" / "verdict" / name, marked) for name in verdict["contenders"]}
    found = {"seed": seed, "relation": truth["relation"], "named": verdict["names"], "reads": verdict["reads"]}
    seconds = round(time.monotonic() - started)
    return found | {"relation_rows": scores, "against": verdict["against"], "seconds": seconds}


def on_relation(scores: Path, marked: set[int]) -> dict[str, float]:
    """Accuracy on the rows that ask for the missing relation, and on all others; by the plan, not by the finding."""
    from tuneloop.store import read_table

    rows = read_table(scores / "rows.parquet").to_pylist()
    inside = [r["correct"] for r in rows if r["task"] == "questions" and int(r["row"][:5]) in marked]
    outside = [r["correct"] for r in rows if not (r["task"] == "questions" and int(r["row"][:5]) in marked)]
    return {"n": len(inside), "slice": sum(inside) / len(inside), "rest": sum(outside) / len(outside)}


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over seeds; differences with Student intervals over seeds."""
    found: dict[str, Any] = {"seeds": len(results)}
    full = [r for r in results if {"round-1", "control"} <= set(r["relation_rows"])]
    found["loop_acted"] = len(full)
    for part in ("slice", "rest"):
        for name in ("base", "round-0", "control", "round-1"):
            found[f"{part} {name}"] = mean([r["relation_rows"][name][part] for r in full])
        for other in ("round-0", "control"):
            diffs = [r["relation_rows"]["round-1"][part] - r["relation_rows"][other][part] for r in full]
            found[f"{part} loop - {other}"] = spread(diffs)
    # The rows that the findings named, which need not be those of the plan.
    for part in ("slice", "elsewhere"):
        for other in ("round-0", "control"):
            found[f"named {part} loop - {other}"] = spread([r["against"][other][part]["diff"] for r in full])
    return found


def spread(diffs: list[float]) -> list[float]:
    """Mean and Student's interval over the seeds."""
    value, _, low, high = mean_interval(diffs)
    return [round(x, 4) for x in (value, low, high)]


def mean(values: list[float]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="20-24")
    parser.add_argument("--teacher", action="store_true", help="rows written for the finding, not drawn from a pool")
    parser.add_argument("--quick", action="store_true", help="one seed")
    parser.add_argument("--cache", type=Path, default=Path("runs/loop_gap"))
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    first, _, last = options.seeds.partition("-")
    seeds = [int(first)] if options.quick else list(range(int(first), int(last or first) + 1))
    console.set_mode(quiet=True)
    results = []
    for seed in seeds:
        results.append(one(seed, options.cache, options.teacher))
        print(json.dumps(results[-1]), flush=True)
    found = summary(results)
    if options.out:
        write_json(options.out, {"command": " ".join(sys.argv), **found, "results": results})
    print(json.dumps(found))


if __name__ == "__main__":
    main()
