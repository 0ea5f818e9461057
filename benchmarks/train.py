"""Training speed and memory beside the peers: the same examples, in the same order, in the same steps.

    python benchmarks/train.py                       every side and shape, three alternations (hours on two cores)
    python benchmarks/train.py --quick               one shape, few steps, at most ten minutes
    python benchmarks/train.py --sides ours,trl --shape 135m --steps 4 --into FILE    a part; parts add up in FILE
    python benchmarks/train.py --ablation            our levers added one after the other
    python benchmarks/train.py --tables FILE         only the tables and the last line, from what FILE holds

Rows: Alpaca and GSM8K in turn, prompt and answer as plain text, answers trained. A side runs in its own process and
environment (`benchmarks/peers.sh`); the first step is not timed. Counted are real tokens and operations that a step
needs: 6 x layer parameters x tokens + 6 x width x vocabulary x trained tokens + attention inside texts; nothing skipped
or padded counts. The matrix rate is the median of 4096^3 bfloat16 products before and after each side.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
SHARED = Path(os.environ.get("TUNELOOP_SHARED", HERE.parent.parent / "shared"))
PEERS = Path(os.environ.get("TUNELOOP_PEERS", "~/.cache/tuneloop-peers")).expanduser()
SIDES = {
    "ours": None,
    "trl": None,
    "trl_best": None,
    "trl_bf16": None,
    "trl_packed": None,
    "trainer": None,
    "litgpt": "litgpt",
    "llamafactory": "llamafactory",
}
ABLATION = ("padded", "packed", "memory", "products", "projection", "compiled")


def python_of(side: str) -> str | None:
    """The interpreter of a side's environment; None where it is not installed."""
    name = SIDES.get(side)
    if name is None:
        return sys.executable
    path = PEERS / name / "bin" / "python"
    return str(path) if path.exists() else None


def matrix_rate(threads: int) -> float:
    """Median TFLOP/s of bfloat16 products of 4096 x 4096, in a process of its own."""
    code = f"""
import statistics, time, torch
torch.set_num_threads({threads})
a, b = torch.randn(4096, 4096).bfloat16(), torch.randn(4096, 4096).bfloat16()
out, rates = a @ b, []
for _ in range(5):
    start = time.perf_counter()
    torch.mm(a, b, out=out)
    rates.append(2 * 4096**3 / (time.perf_counter() - start) / 1e12)
print(statistics.median(rates))
"""
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def run_side(side: str, job: dict[str, Any], limit_s: int) -> dict[str, Any]:
    """What a side reports, or why it has nothing to report."""
    python = python_of(side.split(":")[0])
    if python is None:
        return {"side": side, "failed": f"not installed below {PEERS}: see benchmarks/peers.sh"}
    threads = str(job["threads"])
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= {"DISABLE_VERSION_CHECK": "1", "CUDA_VISIBLE_DEVICES": ""}
    before = matrix_rate(job["threads"])
    try:
        done = subprocess.run(
            [python, str(HERE / "train_sides.py"), side, json.dumps(job)],
            capture_output=True,
            text=True,
            timeout=limit_s,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return {"side": side, "failed": f"no end after {limit_s} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        return {"side": side, "failed": (done.stderr.strip().splitlines() or ["no output"])[-1][:300]}
    found: dict[str, Any] = json.loads(lines[-1])
    found |= {"side": side, "matrix_rate": statistics.median([before, matrix_rate(job["threads"])])}
    return found


def summary(runs: list[dict[str, Any]], key: tuple[str, str]) -> dict[str, dict[str, Any]]:
    """Per side of one shape and method: medians and ranges over the alternations."""
    found: dict[str, dict[str, Any]] = {}
    for side in dict.fromkeys(run["side"] for run in runs):
        mine = [r for r in runs if r["side"] == side and (r["shape"], r["method"]) == key]
        good = [r for r in mine if "failed" not in r]
        if not good:
            if mine:
                found[side] = {"failed": mine[-1]["failed"]}
            continue
        rates = [r["tokens_per_s"] for r in good]
        found[side] = {
            "tokens_per_s": statistics.median(rates),
            "range": [min(rates), max(rates)],
            "runs": len(good),
            "peak_mib": statistics.median([r["peak_mib"] for r in good]),
            "activation_mib": statistics.median([r["activation_mib"] for r in good]),
            "matrix_fraction": statistics.median([r["flops_per_s"] / 1e12 / r["matrix_rate"] for r in good]),
            "losses": good[-1]["losses"],
            "settings": good[-1]["settings"],
        }
    return found


def table(found: dict[str, dict[str, Any]], title: str) -> str:
    lines = [
        title,
        f"{'side':<22}{'tokens/s':>10}{'range':>16}{'peak MiB':>10}{'activ. MiB':>12}{'of rate':>9}{'loss':>9}",
    ]
    for side, row in found.items():
        if "failed" in row:
            lines.append(f"{side:<22}  null: {row['failed'][:74]}")
            continue
        span = f"{row['range'][0]:.0f}-{row['range'][1]:.0f}"
        lines.append(
            f"{side:<22}{row['tokens_per_s']:>10.0f}{span:>16}{row['peak_mib']:>10.0f}{row['activation_mib']:>12.0f}"
            f"{row['matrix_fraction']:>9.1%}{row['losses'][-1]:>9.4f}"
        )
    return "\n".join(lines)


def verdict(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The last line; null where a side has no number."""
    ours, trl = found.get("ours", {}), found.get("trl", {})
    peers = {s: r for s, r in found.items() if s != "ours" and "failed" not in r}
    best = max(peers, key=lambda s: peers[s]["tokens_per_s"], default=None)
    have = "tokens_per_s" in ours

    def ratio(row: dict[str, Any]) -> float | None:
        return round(ours["tokens_per_s"] / row["tokens_per_s"], 2) if have and "tokens_per_s" in row else None

    lean = min((r["activation_mib"] for r in peers.values()), default=None)
    return {
        "vs_trl_default": ratio(trl),
        "vs_best_peer": ratio(peers[best]) if best else None,
        "best_peer": best,
        "matrix_rate_fraction": round(ours["matrix_fraction"], 3) if have else None,
        "activation_memory_vs_best_peer": round(ours["activation_mib"] / lean, 3) if have and lean else None,
        "final_loss": {"ours": ours["losses"][-1] if have else None, "trl": (trl.get("losses") or [None])[-1]},
    }


def jobs(a: argparse.Namespace) -> list[tuple[str, dict[str, Any]]]:
    base = {"shared": str(SHARED), "steps": a.steps, "batch": 16, "threads": a.threads, "rate": 3e-4}
    sides = [f"ours:{lever}" for lever in ABLATION] if a.ablation else a.sides.split(",")
    shapes, methods = a.shape.split(","), a.method.split(",")
    return [
        (side, {**base, "shape": shape, "method": method})
        for shape in shapes
        for method in methods
        for _ in range(a.alternations)
        for side in sides
    ]


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    p.add_argument("--sides", default=",".join(SIDES))
    p.add_argument("--shape", default="15m,135m")
    p.add_argument("--method", default="full,lora")
    p.add_argument("--steps", type=int, default=6)
    p.add_argument("--alternations", type=int, default=3)
    p.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    p.add_argument("--ablation", action="store_true")
    p.add_argument("--limit", type=int, default=900, help="seconds for one side")
    p.add_argument("--into", type=Path)
    p.add_argument("--tables", type=Path)
    a = p.parse_args()
    if a.quick:
        a.shape, a.method, a.steps, a.sides = "15m", "full", 3, "ours,trl,trl_best,trainer"
    into = a.tables or a.into or HERE / "results" / f"{datetime.date.today()}-train{'-quick' if a.quick else ''}.json"
    held: dict[str, Any] = json.loads(into.read_text()) if into.exists() and not a.quick else {"runs": []}
    for side, job in [] if a.tables else jobs(a):
        started = time.time()
        run = {**run_side(side, job, a.limit), "shape": job["shape"], "method": job["method"], "steps": job["steps"]}
        held["runs"].append(run)
        print(f"{side} {job['shape']} {job['method']} {time.time() - started:.0f} s: ", file=sys.stderr, end="")
        print(run.get("failed") or f"{run['tokens_per_s']:.0f} tokens/s", file=sys.stderr, flush=True)
        held |= {"date": str(datetime.date.today()), "machine": machine(a.threads), "command": " ".join(sys.argv)}
        into.parent.mkdir(exist_ok=True)
        into.write_text(json.dumps(held, indent=1) + "\n")
    keys = list(dict.fromkeys((r["shape"], r["method"]) for r in held["runs"]))
    for shape, method in keys:
        print(table(summary(held["runs"], (shape, method)), f"\n{shape}, {method}"))
    key = ("135m", "full") if ("135m", "full") in keys else keys[0]
    print(json.dumps(verdict(summary(held["runs"], key))))


def machine(threads: int) -> dict[str, Any]:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    flags = Path("/proc/cpuinfo").read_text()
    native = [flag for flag in ("amx_bf16", "avx512_bf16") if flag in flags]
    return {"cpu": model, "threads": threads, "bfloat16": native, "python": platform.python_version()}


if __name__ == "__main__":
    main()
