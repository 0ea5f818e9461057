"""The generation engine: throughput against an instant server, the similarity filter beside the original's, kills.

    python benchmarks/generate.py                     a pool of 100,000 prompts, ten kills
    python benchmarks/generate.py --quick             a pool of 20,000
    python benchmarks/generate.py --campaign FILE     kills as `generate_kills.py` counted them: one JSON object a line

The original (self-instruct, generate_instructions.py) scores each candidate with the rouge-score package against every
prompt of the pool: it tokenises both sides anew and starts a pool of processes for each candidate. Here the scan is one
process whose pool is tokenised beforehand, which flatters it. It runs for SCANNED candidates against the whole pool;
`similarity_speedup` is its time for them over ours. What it would take for all rows is extrapolated.
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
REQUESTS = 6000
AT_ONCE = 256
SCANNED = 24


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


def candidates(texts: list[str], count: int) -> list[str]:
    """From none to half of the words of a real prompt replaced by those of others: decisions on both sides."""
    rng = random.Random(1)
    made = []
    for number in range(count):
        words = rng.choice(texts).split()
        share = number / count / 2
        made.append(
            " ".join(rng.choice(rng.choice(texts).split() or [""]) if rng.random() < share else w for w in words)
        )
    return made


def filtered(texts: list[str]) -> tuple[Any, dict[str, Any]]:
    """The filter as a run uses it: each prompt is held against those that were kept before, and kept if it is new."""
    from tuneloop.neighbours.similar import Similar

    pool, growth, dropped = Similar(0.7), {}, 0
    started = since = time.perf_counter()
    for number, text in enumerate(texts, start=1):
        if pool.find(text) is None:
            pool.add(text)
        else:
            dropped += 1
        if number % (len(texts) // 4) == 0:
            now = time.perf_counter()
            growth[number], since = round(1000 * (now - since) / (len(texts) // 4), 3), now
    return pool, {
        "similarity_rows": len(texts), "dropped": dropped, "filter_s": round(time.perf_counter() - started, 1),
        "ms_a_row_up_to": growth, "pairs_compared": pool.compared,
    }  # fmt: skip


def similarity(count: int) -> dict[str, Any]:
    from rouge_score.rouge_scorer import RougeScorer, _score_lcs

    from tuneloop.neighbours.similar import Similar

    texts = prompts(count)
    _, found = filtered(texts)
    full = Similar(0.7)
    for text in texts:
        full.add(text)
    full.find(texts[0])  # the first call pays for more than itself
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    pool = [scorer._tokenizer.tokenize(text) for text in texts]
    equal, close, scan_s, ours_s = 0, 0, 0.0, 0.0
    for number, text in enumerate(candidates(texts, SCANNED)):
        started = time.perf_counter()
        tokens = scorer._tokenizer.tokenize(text)
        hit = max(_score_lcs(tokens, held).fmeasure for held in pool) > 0.7
        scan_s += time.perf_counter() - started
        started = time.perf_counter()
        same = full.find(text)
        ours_s += time.perf_counter() - started
        equal, close = equal + ((same is not None) == hit), close + hit
        print(f"scan {number + 1} of {SCANNED}: {scan_s:.0f} s", file=sys.stderr, flush=True)
    return found | {
        "similarity_speedup": round(scan_s / ours_s, 1), "scan_s_a_row": round(scan_s / SCANNED, 2),
        "ours_ms_a_row": round(1000 * ours_s / SCANNED, 2),
        "equal_decisions": f"{equal}/{SCANNED}, {close} of them close",
        "scan_s_of_all_rows_extrapolated": round(scan_s / SCANNED * count / 2),
    }  # fmt: skip


def counted(file: Path) -> dict[str, int]:
    """The parts of a campaign put together."""
    parts = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    names = ("kills", "repeated_calls", "in_flight_repeated", "rows_lost", "trials", "same")
    most = max(part["most_in_flight"] for part in parts)
    return {name: sum(part[name] for part in parts) for name in names} | {"most_in_flight": most}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", choices=["throughput", "similarity", "kills"])
    parser.add_argument("--campaign", type=Path)
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
        if given.campaign:
            found |= counted(given.campaign)
        elif given.only in (None, "kills"):
            found |= campaign(10, work, seeds, faults=("--rate", "0.2", "--delay", "0.2"))
    print(json.dumps(found))


if __name__ == "__main__":
    main()
