"""The generation engine: throughput against an instant server, kills, and the similarity filter beside the original's.

    python benchmarks/generate.py --quick      ten kills, a pool of 20,000 prompts
    python benchmarks/generate.py              a hundred kills, a pool of 100,000 prompts

The original (self-instruct, generate_instructions.py) scores each candidate with the rouge-score package against every
prompt of the pool, in a pool of processes that is started anew for each. Here it is one process that is already there,
which flatters it. `similarity_speedup` is its time for a candidate against the full pool over ours, on the same
candidates, whose decisions must be equal.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from benchmarks.generate_kills import ROOT, Server, campaign, run_to_end, seed_file

SHARED = ROOT.parent / "shared" / "data"
SOURCES = {
    "self_instruct/seed_tasks": "instruction", "alpaca/alpaca_subset": "instruction", "dolly/dolly_3k": "instruction",
    "gsm8k/train": "question", "mmlu/test": "question", "arc_easy/train": "question", "banking77/train": "text",
}  # fmt: skip
REQUESTS = 2000
AT_ONCE = 256
SCANNED = 10
PROBES = 200


def throughput(work: Path) -> dict[str, Any]:
    """A run of REQUESTS calls, AT_ONCE under way, each answered at once by a process on the other core."""
    log = work / "instant.log"
    with Server(log, "--rate", "0", "--permanent", "0", "--silent") as server:
        out = work / "instant"
        settings = {
            "method": "self_instruct", "seeds": str(work / "seeds"), "teacher.name": "m", "window": 1024,
            "teacher.base_url": server.url, "teacher.concurrency": AT_ONCE, "limits.rows": 4 * REQUESTS,
            "filters.similarity": "null", "filters.near_duplicate": "null",
        }  # fmt: skip
        flags = [part for name, value in settings.items() for part in ("--set", f"generate.{name}={value}")]
        command = [sys.executable, "-m", "tuneloop", "generate", "--out", str(out), "--quiet", *flags]
        run_to_end(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    summary = json.loads((out / "summary.json").read_text())
    return {
        "requests_per_s": round(summary["calls"]["calls"] / summary["run_seconds"], 1),
        "requests": summary["calls"]["calls"], "peak": summary["limiter"]["peak"],
    }  # fmt: skip


def prompts(count: int) -> list[str]:
    """Real prompts, shuffled; beyond their number, real ones with one word in four taken from another."""
    texts: list[str] = []
    for name, column in SOURCES.items():
        with gzip.open(SHARED / f"{name}.jsonl.gz", "rt", encoding="utf-8") as lines:
            texts += [json.loads(line)[column] for line in lines]
    rng = random.Random(0)
    rng.shuffle(texts)
    real = len(texts)
    while len(texts) < count:
        words, others = rng.choice(texts[:real]).split(), rng.choice(texts[:real]).split()
        texts.append(" ".join(rng.choice(others) if others and rng.random() < 0.25 else word for word in words))
    return texts[:count]


def similarity(count: int) -> dict[str, Any]:
    from rouge_score.rouge_scorer import RougeScorer, _score_lcs

    from tuneloop.neighbours.similar import Similar

    texts = prompts(count + PROBES)
    full, growth = Similar(0.7), {}
    started = time.perf_counter()
    for number, text in enumerate(texts[:count], start=1):
        full.add(text)
        if number % (count // 4) == 0:
            asked_at = time.perf_counter()
            for probe in texts[count:]:
                full.find(probe)
            growth[number] = round(1000 * (time.perf_counter() - asked_at) / PROBES, 3)
    build_s = time.perf_counter() - started
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pool = [scorer._tokenizer.tokenize(text) for text in texts[:count]]
    rng = random.Random(1)
    asked = []
    for _ in range(SCANNED):  # half new, half with a few words changed
        words = rng.choice(texts).split()
        kept = [word if rng.random() < 0.85 else rng.choice(texts).split()[0:1] or word for word in words]
        asked.append(" ".join(word if isinstance(word, str) else " ".join(word) for word in kept))
    equal, scan_s, ours_s = 0, 0.0, 0.0
    for text in asked:
        started = time.perf_counter()
        tokens = scorer._tokenizer.tokenize(text)
        close = max(_score_lcs(tokens, held).fmeasure for held in pool) > 0.7
        scan_s += time.perf_counter() - started
        started = time.perf_counter()
        found = full.find(text)
        ours_s += time.perf_counter() - started
        equal += (found is not None) == close
    return {
        "similarity_speedup": round(scan_s / ours_s, 1), "similarity_rows": count, "build_s": round(build_s, 1),
        "ms_a_candidate_at": growth, "scan_s_a_candidate": round(scan_s / SCANNED, 2),
        "ours_ms_a_candidate": round(1000 * ours_s / SCANNED, 2), "equal_decisions": f"{equal}/{SCANNED}",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["throughput", "similarity", "kills"])
    given = parser.parse_args()
    names = ("requests_per_s", "rows_lost", "repeated_calls", "in_flight_repeated", "similarity_speedup", "kills")
    found: dict[str, Any] = dict.fromkeys(names)
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        seeds = seed_file(work)
        if given.only in (None, "throughput"):
            found |= throughput(work)
        if given.only in (None, "similarity"):
            found |= similarity(20_000 if given.quick else 100_000)
        if given.only in (None, "kills"):
            found |= campaign(10 if given.quick else 100, work, seeds, faults=("--rate", "0.2", "--delay", "0.2"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
