"""Attention over texts of any lengths end to end in one kernel, on GPUs: torch's FlashAttention of varying lengths.

It takes bfloat16 and float16 on CUDA from compute capability 8.0 up. Elsewhere texts of near length go through the
ordinary kernel side by side (`attention`): the same numbers within rounding, and more work for it.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Sequence
from typing import Any

import torch

from tuneloop.train.places import Line

WIDEST = 256  # of a head, in numbers
AMPERE = (8, 0)


def fits(heads: Sequence[torch.Tensor], dropout: float) -> bool:
    """Whether the kernel takes query (T, H, D), key and value (T, G, D): heads of one width, a multiple of 8.

    Models with latent attention (DeepSeek-V2, MiniCPM3) have values narrower than their keys.
    """
    query, width = heads[0], heads[0].shape[-1]
    if any(x.shape[-1] != width for x in heads):
        return False
    if query.device.type != "cuda" or dropout or query.dtype not in (torch.bfloat16, torch.float16):
        return False
    return width % 8 == 0 and width <= WIDEST and torch.cuda.get_device_capability(query.device) >= AMPERE


def varlen(heads: Sequence[torch.Tensor], line: Line, scale: float | None) -> torch.Tensor:
    """Query (T, H, D), key and value (T, G, D) -> (T, H, D); every text of the line attends to itself alone."""
    from torch.nn.attention.varlen import varlen_attn

    query, key, value = heads if line.order is None else (x.index_select(0, line.order) for x in heads)
    repeats = query.shape[1] // key.shape[1]
    shares = repeats > 1 and _shares_heads()
    if repeats > 1 and not shares:
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    more: dict[str, Any] = {"scale": scale, "window_size": (-1, 0), **({"enable_gqa": True} if shares else {})}
    out: Any = varlen_attn(query, key, value, line.ends, line.ends, line.longest, line.longest, **more)
    found: torch.Tensor = out if line.first is None else out.index_select(0, line.first)
    return found


@functools.cache
def _shares_heads() -> bool:
    """Whether this torch lets query heads share a key head (from 2.12 on)."""
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters
