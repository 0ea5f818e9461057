"""The floor of a training step: only the matrix products it cannot do without, at their own sizes, one after the other.

    python benchmarks/train_floor.py [--shape 135m] [--tokens 2400] [--trained 1600]

For each linear layer its forward product and the two of its gradient, for the output projection the same at trained
positions, in bfloat16 with `out=` given, medians of five; attention, norms, loss and optimiser are left out. Prints
tokens a second that nothing here can pass at these sizes, and the rate as a share of that of 4096^3 products.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time

import torch
from train import matrix_rate
from train_sides import KEYS, SHAPES, VOCABULARY


def seconds(rows: int, inner: int, columns: int, times: int = 5) -> float:
    """Of one product (rows, inner) x (inner, columns), median."""
    a, b = torch.randn(rows, inner).bfloat16(), torch.randn(inner, columns).bfloat16()
    out = a @ b
    found = []
    for _ in range(times):
        started = time.perf_counter()
        torch.mm(a, b, out=out)
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def layer(tokens: int, width: int, out: int) -> tuple[float, float]:
    """(seconds, operations) of a linear layer: its result, and the gradients of input and weight."""
    spent = seconds(tokens, width, out) + seconds(tokens, out, width) + seconds(out, tokens, width)
    return spent, 6.0 * tokens * width * out


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", default="135m")
    parser.add_argument("--tokens", type=int, default=2400)
    parser.add_argument("--trained", type=int, default=1600)
    a = parser.parse_args()
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    s = SHAPES[a.shape]
    width, inner, layers = s["hidden_size"], s["intermediate_size"], s["num_hidden_layers"]
    keys = KEYS[a.shape] * width // s["num_attention_heads"]
    parts = {"q, o": (2, width), "k, v": (2, keys), "gate, up": (2, inner)}
    total = work = 0.0
    for name, (times, out) in parts.items():
        spent, done = layer(a.tokens, width, out)
        print(f"{name:<10}{spent * 1e3:8.2f} ms {done / spent / 1e12:6.3f} TFLOP/s")
        total, work = total + layers * times * spent, work + layers * times * done
    for name, (rows, inside, out, times) in {
        "down": (a.tokens, inner, width, layers),
        "vocabulary": (a.trained, width, VOCABULARY[a.shape], 1),
    }.items():
        spent, done = layer(rows, inside, out)
        print(f"{name:<10}{spent * 1e3:8.2f} ms {done / spent / 1e12:6.3f} TFLOP/s")
        total, work = total + times * spent, work + times * done
    rate = matrix_rate(threads)
    found = {"tokens_per_s": a.tokens / total, "tflops": work / total / 1e12, "of_rate": work / total / 1e12 / rate}
    print(json.dumps({k: round(v, 3) for k, v in found.items()}))


if __name__ == "__main__":
    main()
