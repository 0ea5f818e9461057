"""The loss over a large vocabulary, forward and backward: all scores at once, torch's chunked function, and ours.

    python benchmarks/train_loss.py [--quick] [--threads N]

N trained positions of width 576 on 49,152 tokens, bfloat16. Seconds are the best of the repetitions, memory is what the
process's peak grows by. One process a way. Prints one JSON object as its last line.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
WAYS = ("all scores", "torch chunked", "ours", "ours compiled")


def loss_of(way: str, hidden: Any, weight: Any, target: Any) -> Any:
    import torch
    from torch.nn.functional import cross_entropy, linear

    if way == "all scores":
        return cross_entropy(linear(hidden, weight).float(), target, reduction="sum")
    if way == "torch chunked":
        options = torch.nn.LinearCrossEntropyOptions()
        return torch.nn.functional.linear_cross_entropy(hidden, weight, target, reduction="sum", options=options)
    from tuneloop.train import fuse
    from tuneloop.train.project import summed_losses

    fuse.use(way == "ours compiled")
    return summed_losses(hidden, weight, None, target, torch.ones(len(target)))[0]


def measure(way: str, count: int, repeat: int, threads: int) -> dict[str, Any]:
    import torch

    from tuneloop.train.fuse import keep_memory

    torch.set_num_threads(threads)
    keep_memory()
    torch.manual_seed(0)
    hidden = torch.randn(count, 576).bfloat16().requires_grad_()
    weight = (torch.randn(49152, 576) * 0.02).bfloat16().requires_grad_()
    target = torch.randint(0, 49152, (count,))
    (torch.randn(256, 576).bfloat16() @ weight.t()).sum().backward()  # loads what the first product loads
    before, seconds, loss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, [], 0.0
    for _ in range(repeat + 1):
        hidden.grad = weight.grad = None
        start = time.perf_counter()
        found = loss_of(way, hidden, weight, target)
        found.backward()
        seconds.append(time.perf_counter() - start)
        loss = float(found.detach())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"way": way, "ms": min(seconds[1:]) * 1e3, "peak_mib": peak / 1024, "loss": loss / count}


def main() -> None:
    p = argparse.ArgumentParser()
    p.add_argument("--quick", action="store_true")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--count", type=int, default=1024)
    p.add_argument("--way")
    p.add_argument("--into", type=Path)
    a = p.parse_args()
    repeat = 2 if a.quick else 5
    if a.way:
        print(json.dumps(measure(a.way, a.count, repeat, a.threads)))
        return
    found = []
    for way in WAYS:
        done = subprocess.run(
            [sys.executable, __file__, "--way", way, "--count", str(a.count), "--threads", str(a.threads)]
            + (["--quick"] if a.quick else []),
            capture_output=True,
            text=True,
        )
        line = done.stdout.strip().splitlines()[-1:] or ["{}"]
        found.append(json.loads(line[0]) or {"way": way, "failed": done.stderr.strip().splitlines()[-1]})
        print(found[-1], file=sys.stderr)
    result = {"date": str(datetime.date.today()), "threads": a.threads, "count": a.count, "found": found}
    if not a.quick:
        into = a.into or HERE / "results" / f"{datetime.date.today()}-train-loss.json"
        into.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
