"""How much one forward pass may hold, from the model's shape and the memory that is free."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

SHARE = 0.5  # of the free memory
# More tokens than this in one pass gain nothing: on a CPU the products are at their full rate long before.
CPU_TOKENS, GPU_TOKENS = 4096, 65536
CPU_READS_BYTES = 1 << 28  # logits of one pass; more only costs page faults


@dataclass(frozen=True, slots=True)
class Budget:
    """Limits of one pass: `tokens` in it, `reads` (rows of logits), `prefix` (tokens of a shared beginning kept)."""

    tokens: int
    reads: int
    prefix: int

    def halved(self) -> Budget:
        return Budget(max(1, self.tokens // 2), max(1, self.reads // 2), max(1, self.prefix // 2))


def measure(model: Any, batch_tokens: int | None = None, memory: int | None = None) -> Budget:
    """`memory` bytes (default: what is free on the model's device) shared among activations, logits and a kept prefix.

    `batch_tokens` only lowers the tokens that fit.
    """
    config, width = model.config.get_text_config(), next(model.parameters()).element_size()
    hidden, layers = int(config.hidden_size), int(config.num_hidden_layers)
    inner = int(getattr(config, "intermediate_size", None) or 4 * hidden)
    heads = int(getattr(config, "num_key_value_heads", None) or config.num_attention_heads)
    head = int(getattr(config, "head_dim", None) or hidden // config.num_attention_heads)
    gpu = model.device.type != "cpu"
    room = (memory if memory is not None else free_bytes(model.device)) * SHARE
    token = width * (10 * hidden + 3 * inner)  # residual, norms, projections, the three of the MLP
    row = int(config.vocab_size) * (4 + 4 + width)  # logits, in float32, and their log-softmax
    kept = 2 * layers * heads * head * width
    reads = room / 4 / row if gpu else min(room / 4, CPU_READS_BYTES) / row
    tokens = min(room / 2 / token, GPU_TOKENS if gpu else CPU_TOKENS)
    return Budget(max(1, int(min(tokens, batch_tokens or tokens))), max(1, int(reads)), int(room / 4 / kept))


def free_bytes(device: Any) -> int:
    """Memory that can still be taken on `device`."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    import os

    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = {line.split(":")[0]: int(line.split()[1]) for line in file}
        return found["MemAvailable"] * 1024
    except (OSError, KeyError, ValueError):  # no Linux: half of what the machine has, where it says so
        pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
        return pages * os.sysconf("SC_PAGE_SIZE") // 2 if pages else 4 << 30
