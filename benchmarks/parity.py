"""Parity with lm-eval: the strings of every row (benchmarks/strings.py), and the log-likelihoods of 500 rows a task
against its HFLM: largest gap, flips (decisions that differ beyond a margin of 1e-4), ties (closer than that).

    python benchmarks/parity.py --model FOLDER --data FOLDER [--quick]

Prints one JSON object as its last line; a full run also writes it, dated, to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

TASKS = ("arc_easy", "arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc1", "truthfulqa_mc2")
NOISE = 1e-4
# Where too few rows of a task are too long by themselves, shots make them so; HellaSwag's local copy has five.
LONG_SHOTS = {"hellaswag": 5, "mmlu": 5}


def choose(items: list[Any], tokenizer: Any, room: int, fit: int, over: int) -> list[Any]:
    """The first rows whose longest option fits `room` tokens, and the longest ones that do not."""
    inside: list[Any] = []
    for item in items:
        if len(inside) == fit:
            break
        if not _long(item, tokenizer, room):
            inside.append(item)
    by_size = sorted(items, key=lambda i: -len(i.prompt) - max(map(len, i.options)))
    return inside + [i for i in by_size[: 20 * over] if _long(i, tokenizer, room)][:over]


def peer(folder: str) -> Any:
    """lm-eval's own model class on the same weights, fp32, one row at a time."""
    import torch
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=folder, dtype="float32", device="cpu", batch_size=8, softmax_dtype=torch.float32)


def compare_task(
    name: str, ours: Any, theirs: Any, tokenizer: Any, data: str, sizes: tuple[int, int]
) -> dict[str, Any]:
    """Rows, largest gap, flips and ties of one task."""
    from lm_eval.api.instance import Instance

    from tuneloop import metrics
    from tuneloop.scoring import pair_tokens
    from tuneloop.tasks import TASKS as KNOWN
    from tuneloop.tasks import build_items

    task = KNOWN[name]
    room = ours.max_length + 1
    items = choose(build_items(task, data=data).items, tokenizer, room, *sizes)
    short = sizes[1] - sum(_long(i, tokenizer, room) for i in items)
    if short > 0:
        more = build_items(task, 0 if task.pinned else LONG_SHOTS.get(name, 25), data=data, limit=40).items
        items += [i for i in more if _long(i, tokenizer, room)][:short]
    requests = [(i.prompt, [f" {o}" for o in i.options]) for i in items]
    started = time.monotonic()
    scored = ours.score(pair_tokens(tokenizer, requests), name)
    seconds = time.monotonic() - started
    calls = [Instance("loglikelihood", {}, (prompt, option), 0) for prompt, options in requests for option in options]
    started = time.monotonic()
    answers = theirs.loglikelihood(calls, disable_tqdm=True)
    peer_seconds = time.monotonic() - started
    gap, flips, ties, at = 0.0, [], [], 0
    greedy = 0
    for number, (item, row) in enumerate(zip(items, scored, strict=True)):
        other = answers[at : at + len(row)]
        at += len(row)
        mine, peers = [s.logprob for s in row], [float(v) for v, _ in other]
        gap = max(gap, *(abs(a - b) for a, b in zip(mine, peers, strict=True)))
        greedy += sum(s.greedy != bool(g) for s, (_, g) in zip(row, other, strict=True))
        pairs = [(mine, peers)]
        if task.normalised:
            pairs.append((metrics.by_characters(mine, item.options), metrics.by_characters(peers, item.options)))
        for a, b in pairs:
            top = sorted(b)[-2:]
            close = len(top) == 2 and top[1] - top[0] < NOISE
            if close:
                ties.append(number)
            elif metrics.best(a) != metrics.best(b):
                flips.append(number)
    over = sum(any(s.truncated for s in row) for row in scored)
    return {
        "rows": len(items), "fit": len(items) - over, "truncated": over, "options": len(answers),
        "largest_gap": gap, "flips": flips, "ties": ties, "greedy_differs": greedy,
        "seconds": round(seconds, 2), "peer_seconds": round(peer_seconds, 2), "tree": ours.tree,
    }  # fmt: skip


def _long(item: Any, tokenizer: Any, room: int) -> bool:
    return any(len(tokenizer(f"{item.prompt} {option}")["input_ids"]) > room for option in item.options)


def run(model: str, data: str, fit: int, over: int, tasks: tuple[str, ...] = TASKS) -> dict[str, Any]:
    """Every task's result, with versions and machine."""
    import torch

    from tuneloop.models import context_length, load_model, load_tokenizer
    from tuneloop.scoring import Scorer

    torch.set_num_threads(1)
    tokenizer, loaded, theirs = load_tokenizer(model), load_model(model, dtype="float32", device="cpu"), peer(model)
    found = {}
    for name in tasks:
        scorer = Scorer(loaded, max_length=context_length(loaded, tokenizer))
        found[name] = compare_task(name, scorer, theirs, tokenizer, data, (fit, over))
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    versions = {p: importlib.metadata.version(p) for p in ("lm_eval", "torch", "transformers")}
    return {
        "benchmark": "parity", "date": datetime.date.today().isoformat(), "model": Path(model).name,
        "machine": f"{platform.machine()} {platform.system()}, 1 thread", "versions": versions,
        "largest_gap": max(t["largest_gap"] for t in found.values()),
        "flips": sum(len(t["flips"]) for t in found.values()), "tasks": found,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--quick", action="store_true", help="30 rows a task, strings of 5")
    asked = parser.parse_args()
    result = run(asked.model, asked.data, *((30, 5) if asked.quick else (480, 20)))
    sys.path.insert(0, str(Path(__file__).parent))
    import strings

    result["strings"] = strings.run(asked.data, 5 if asked.quick else None)
    if not asked.quick:
        folder = Path(__file__).parent / "results"
        folder.mkdir(exist_ok=True)
        (folder / f"{result['date']}-parity.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
