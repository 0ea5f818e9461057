"""Attention over packed rows: each example sees itself alone.

A packed micro-batch is one row of T tokens without padding. Everything but attention treats tokens one by one; inside
attention, a kernel of varying lengths takes them where there is one (`varlen`). Elsewhere texts of near length are laid
side by side and run under the ordinary causal kernel. Space after a short one is filled with its own last token:
causality keeps it out of every real token's sight, and what is computed there is thrown away, so values and gradients
are exactly those of the text alone. The two texts of a preference pair share the tokens of their common beginning.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from tuneloop.train import varlen
from tuneloop.train.places import Group, Plan, plan, spread
from tuneloop.train.products import products

NAME = "tuneloop"
# Above this many tokens the scores of a text are too large to stand in memory whole.
PRODUCTS_UP_TO = 1024
# Features that some models hand to their attention function and that this one does not know.
UNKNOWN = ("softcap", "s_aux", "position_bias", "sliding_window")


_layout: ContextVar[Plan | None] = ContextVar("tuneloop_layout", default=None)


@contextmanager
def packed(texts: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> Iterator[None]:
    """Inside, a row of T tokens is attended text by text; `texts` cover all T tokens."""
    with _laid(plan(texts, str(device))):
        yield


def same_layout() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """For a forward pass that is run again while gradients are computed, outside of `packed`: the layout it had."""
    return nullcontext(), _laid(_layout.get())


@contextmanager
def _laid(found: Plan | None) -> Iterator[None]:
    token = _layout.set(found)
    try:
        yield
    finally:
        _layout.reset(token)


@torch.compiler.disable  # type: ignore[untyped-decorator]
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
    layout = _layout.get() or Plan([Group(0, 1, query.shape[2], None)], None)
    heads = [x[0].transpose(0, 1) for x in (query, key, value)]
    if query.device.type == "cpu" and not dropout and max(g.width for g in layout.groups) <= PRODUCTS_UP_TO:
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        return products(heads[0], heads[1], heads[2], layout, scale)[None], None
    if layout.line is not None and varlen.fits(heads, dropout):
        return varlen.varlen(heads, layout.line, scaling)[None], None
    repeats = query.shape[1] // key.shape[1]
    heads[1:] = [x.repeat_interleave(repeats, 1) for x in heads[1:]] if repeats > 1 else heads[1:]
    parts = [_attend(group, heads, scaling, dropout) for group in layout.groups]
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    return (joined if layout.collect is None else joined.index_select(0, layout.collect))[None], None


def _attend(group: Group, heads: list[torch.Tensor], scaling: float | None, dropout: float) -> torch.Tensor:
    """(count * width, H, D): the places of one group."""
    laid = [spread(x, group).transpose(1, 2) for x in heads]
    out = scaled_dot_product_attention(laid[0], laid[1], laid[2], is_causal=True, scale=scaling, dropout_p=dropout)
    return out.transpose(1, 2).flatten(0, 1)


def text_lengths(tokens: int, device: torch.device) -> torch.Tensor:
    """(tokens,) how long the text of each token of the packed row is."""
    layout = _layout.get()
    if layout is None:
        return torch.full((tokens,), float(tokens), device=device)
    return layout.lengths.to(device)


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
