"""Attention over one packed row of many trees: each token sees the shared beginning, its own trunk and its ancestors.

B trees in a group, H heads, T tokens of the pass, P of a shared beginning, D per head. Every part is a plain attention
with its log-sum of weights, and parts are joined by it, so no mask spans the whole row and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch

NAME = "tuneloop-trees"
# Features that some models hand to their attention function and that this one does not know.
UNKNOWN = ("softcap", "s_aux", "position_bias")
CHUNK_CELLS = 1 << 24  # entries of one score matrix where no fused kernel gives log-sums
_fused = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


@dataclass(slots=True)
class Group:
    """Trees laid side by side: `ask` (B, q) and `see` (B, k) say which token of the row fills each place; `at` and
    `back` which places hold real queries and the tokens they are. Without a mask (B, 1, q, k) it is causal."""

    ask: torch.Tensor
    see: torch.Tensor
    at: torch.Tensor
    back: torch.Tensor
    mask: torch.Tensor | None


@dataclass(slots=True)
class Span:
    """Tokens [start, stop) of the row come after a shared beginning of `length` tokens.

    It stands at [fresh, fresh + length) of the same row, or, when `fresh` is None, in `kept`, by layer: (keys, values).
    """

    start: int
    stop: int
    length: int
    fresh: int | None
    keep: bool
    kept: dict[int, tuple[torch.Tensor, torch.Tensor]]


@dataclass(slots=True)
class Layout:
    groups: list[Group] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)


_layout: ContextVar[Layout | None] = ContextVar("tuneloop_trees", default=None)


@contextmanager
def laid_out(layout: Layout) -> Iterator[None]:
    token = _layout.set(layout)
    try:
        yield
    finally:
        _layout.reset(token)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,  # (1, H, T, D)
    key: torch.Tensor,  # (1, H / group, T, D)
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **features: Any,
) -> tuple[torch.Tensor, None]:
    """(1, T, H, D). Raises ValueError where the model wants something that this attention does not know."""
    layout = _layout.get()
    odd = [name for name in UNKNOWN if features.get(name) is not None]
    if layout is None or odd or query.shape[0] != 1:
        raise ValueError(f"attention over trees does not know {', '.join(odd) or 'this call'}")
    scale = scaling if scaling is not None else float(query.shape[-1]) ** -0.5
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (T, H, D)
    out, logs = q.new_zeros(q.shape), q.new_zeros(q.shape[:2], dtype=torch.float32)
    for group in layout.groups:
        asked, seen, values = (x[i].transpose(1, 2) for x, i in ((q, group.ask), (k, group.see), (v, group.see)))
        part, weight = attend(asked, seen, values, scale, group.mask, causal=group.mask is None)
        out[group.back] = part.transpose(1, 2).flatten(0, 1)[group.at]
        logs[group.back] = weight.transpose(1, 2).flatten(0, 1)[group.at]
    layer = int(getattr(module, "layer_idx", 0))
    for span in layout.spans:
        if span.fresh is not None:
            past = key[:, :, span.fresh : span.fresh + span.length], value[:, :, span.fresh : span.fresh + span.length]
            if span.keep:
                span.kept[layer] = past[0].clone(), past[1].clone()
        else:
            past = span.kept[layer]
        here = slice(span.start, span.stop)
        part, weight = attend(query[:, :, here], past[0], past[1], scale, None, causal=False)
        _join(out[here], logs[here], part[0].transpose(0, 1), weight[0].transpose(0, 1))
    return out[None], None


def _join(out: torch.Tensor, logs: torch.Tensor, more: torch.Tensor, weight: torch.Tensor) -> None:
    """Adds a second part of the same softmax to `out` (T, H, D), in place; `logs` and `weight` are log-sums (T, H)."""
    share = torch.sigmoid(weight - logs)[..., None].to(out.dtype)
    out += share * (more - out)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    scale: float,
    mask: torch.Tensor | None,
    *,
    causal: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention (B, H, q, D) and the log-sum of its weights (B, H, q) in float32; heads of `key` may be shared."""
    if _fused is not None and query.device.type == "cpu":
        found, logs = _fused(query, key, value, 0.0, causal, attn_mask=mask, scale=scale)
        return found, logs
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    if causal:
        shape = (query.shape[2], key.shape[2])
        mask = torch.full(shape, -torch.inf, device=query.device).triu_(1)
    step = max(1, CHUNK_CELLS // max(1, query.shape[0] * query.shape[1] * key.shape[2]))
    parts = []
    for at in range(0, query.shape[2], step):
        scores = (query[:, :, at : at + step] @ key.transpose(-1, -2)).float() * scale
        if mask is not None:
            scores += mask[..., at : at + step, :]
        logs = torch.logsumexp(scores, -1)
        parts.append(((scores - logs[..., None]).exp().to(value.dtype) @ value, logs))
    return torch.cat([p for p, _ in parts], 2), torch.cat([w for _, w in parts], 2)


def _no_mask(*_: Any, **__: Any) -> None:
    """The layout says all that a mask would."""
    return


def register() -> None:
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface

    AttentionInterface.register(NAME, tree_attention)
    AttentionMaskInterface.register(NAME, _no_mask)
