"""What one sees while it trains: loss and its course, tokens a second, memory, share of the matrix rate."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch

from tuneloop.console import Progress
from tuneloop.train.batch import Item
from tuneloop.train.flops import cost_of, matrix_rate

BARS = "▁▂▃▄▅▆▇█"
WIDTH = 12  # losses in the sparkline: the line is to fit 80 columns


def sparkline(values: list[float]) -> str:
    """Heights between the lowest and the highest value."""
    low, high = min(values), max(values)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((value - low) * scale)] for value in values)


def memory_bytes(device: torch.device) -> int:
    """Peak of the allocator on CUDA, the process's resident memory now elsewhere."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    import psutil

    return int(psutil.Process().memory_info().rss)


class View:
    """Adds what the clock and the machine say to a line of the log, and shows the line."""

    def __init__(self, bar: Progress, model: Any, processes: int) -> None:
        self.bar, self.device, self.cost = bar, model.device, cost_of(model)
        self.rate = matrix_rate(self.device, model.dtype) * processes
        self.losses: deque[float] = deque(maxlen=WIDTH)

    def note(self, row: dict[str, Any], items: list[Item]) -> None:
        """Sets `memory_bytes` and `matrix_rate_fraction`."""
        seconds = row["tokens"] / max(1e-9, row["tokens_per_s"])
        row["memory_bytes"] = memory_bytes(self.device)
        row["matrix_rate_fraction"] = round(self.cost.step(items) / seconds / self.rate, 4)

    def show(self, row: dict[str, Any]) -> None:
        self.losses.append(row["loss"])
        valid = f"  valid {row['valid_loss']:.4f}" if "valid_loss" in row else ""
        self.bar.update(
            f"loss {row['loss']:.4f} {sparkline(list(self.losses))}{valid}  {row['tokens_per_s']:,.0f} tok/s  "
            f"{row['memory_bytes'] / 2**30:.2f} GiB  {row['matrix_rate_fraction']:.0%} of rate"
        )
        self.bar.advance(1)
