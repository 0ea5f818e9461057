"""Attention over packed rows: each example sees itself alone.

A packed micro-batch is one row of T tokens without padding. Everything but attention treats tokens one by one; inside
attention, examples of near length are laid side by side and run under the ordinary causal kernel. Space after a short
one is filled with its own last token: causality keeps it out of every real token's sight, and what is computed there is
thrown away, so values and gradients are exactly those of the example alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

NAME = "tuneloop"
# Features that some models hand to their attention function and that this one does not know.
UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window")


@dataclass(slots=True)
class Group:
    """`count` examples laid out `width` tokens wide; tokens [start, stop) of the packed row.

    `spread` (count * width,) says which token fills each place, `collect` (stop - start,) where each token went;
    both are None when all have the same length.
    """

    start: int
    stop: int
    count: int
    width: int
    spread: torch.Tensor | None
    collect: torch.Tensor | None


_layout: ContextVar[list[Group] | None] = ContextVar("tuneloop_layout", default=None)


def plan(lengths: list[int], device: str = "cpu") -> list[Group]:
    """Neighbouring examples share a group while the longest is at most a quarter (or 8 tokens) above the shortest."""
    groups: list[Group] = []
    first = start = 0
    for i in range(1, len(lengths) + 1):
        inside = lengths[first : i + 1]
        if i < len(lengths) and max(inside) <= max(min(inside) * 1.25, min(inside) + 8):
            continue
        groups.append(_group(start, lengths[first:i], device))
        start = groups[-1].stop
        first = i
    return groups


def _group(start: int, lengths: list[int], device: str) -> Group:
    width, stop = max(lengths), start + sum(lengths)
    if min(lengths) == width:
        return Group(start, stop, len(lengths), width, None, None)
    spread: list[int] = []
    collect: list[int] = []
    offset = 0
    for row, length in enumerate(lengths):
        spread += [offset + min(i, length - 1) for i in range(width)]
        collect += [row * width + i for i in range(length)]
        offset += length
    return Group(
        start, stop, len(lengths), width, torch.tensor(spread, device=device), torch.tensor(collect, device=device)
    )


@contextmanager
def packed(lengths: list[int], device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, rows are examples of these lengths, end to end (their sum is T)."""
    token = _layout.set(plan(lengths, str(device)))
    try:
        yield
    finally:
        _layout.reset(token)


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **features: Any,
) -> tuple[torch.Tensor, None]:
    """Attention function of the Transformers interface. query (1, H, T, D), key and value (1, G, T, D) -> (1, T, H, D).

    Raises ValueError for a feature it does not know, so that the caller can fall back to padding.
    """
    known = [name for name in UNKNOWN if features.get(name) is not None]
    if known:
        raise ValueError(f"packed attention does not know {', '.join(known)}")
    groups = _layout.get() or [Group(0, query.shape[2], 1, query.shape[2], None, None)]
    if key.shape[1] != query.shape[1]:
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    heads = [x[0].transpose(0, 1) for x in (query, key, value)]
    parts = [_attend(group, heads, scaling, dropout) for group in groups]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


def _attend(group: Group, heads: list[torch.Tensor], scaling: float | None, dropout: float) -> torch.Tensor:
    """(T, H, D) of one group."""
    laid = []
    for x in heads:
        part = x[group.start : group.stop]
        if group.spread is not None:
            part = part.index_select(0, group.spread)
        laid.append(part.reshape(group.count, group.width, *x.shape[1:]).transpose(1, 2))
    out = scaled_dot_product_attention(laid[0], laid[1], laid[2], is_causal=True, scale=scaling, dropout_p=dropout)
    flat = out.transpose(1, 2).reshape(group.count * group.width, out.shape[1], out.shape[3])
    return flat if group.collect is None else flat.index_select(0, group.collect)


def _no_mask(*_: Any, **__: Any) -> None:
    """The layout says all that a mask would."""
    return


def register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, packed_attention)
    AttentionMaskInterface.register(NAME, _no_mask)


def why_not(model: Any, limit: int) -> str:
    """Why this model cannot be packed for rows of `limit` tokens; empty when it may be tried."""
    config = model.config.get_text_config()
    if not getattr(model, "_supports_attention_backend", False):
        return "its code has an attention of its own"
    if getattr(config, "is_encoder_decoder", False):
        return "it has an encoder"
    kinds = set(getattr(config, "layer_types", None) or []) - {"full_attention"}
    window = getattr(config, "sliding_window", None)
    if kinds and not (kinds == {"sliding_attention"} and window and window >= limit):
        return f"its layers use {', '.join(sorted(kinds))}"
    if window and getattr(config, "use_sliding_window", True) and window < limit:
        return f"it attends through a window of {window} tokens"
    if getattr(config, "alibi", False) or getattr(config, "attn_logit_softcapping", None):
        return "its attention scores carry a bias or a cap"
    return ""
