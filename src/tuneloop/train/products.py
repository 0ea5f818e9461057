"""Causal attention as batched matrix products, for CPUs: several times the fused kernel's speed there on short texts.

n texts of W places, H query heads on G key heads (r = H / G), D wide. The r heads that share a key go through one
product. Probabilities are made again for the gradient, so what stays in memory is linear in the tokens.
"""

from __future__ import annotations

from typing import Any

import torch

from tuneloop.train.fuse import fused
from tuneloop.train.places import Group, Plan, spread


def products(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, layout: Plan, scale: float) -> torch.Tensor:
    """query (T, H, D), key and value (T, G, D) -> (T, H, D); every text of the layout attends to itself alone."""
    found: torch.Tensor = _Products.apply(query, key, value, layout, scale)  # type: ignore[no-untyped-call]
    return found


@fused
def _soften(scores: torch.Tensor, scale: float) -> tuple[torch.Tensor, torch.Tensor]:
    """scores [nG, r, W, W] -> causal probabilities, and [nG, r, W, 1] their log-normaliser."""
    place = torch.arange(scores.shape[-1], device=scores.device)
    x = torch.where(place[None, :] <= place[:, None], scores.float() * scale, float("-inf"))
    high = x.amax(-1, keepdim=True)
    powers = (x - high).exp()
    total = powers.sum(-1, keepdim=True)
    return (powers / total).to(scores.dtype), total.log() + high


@fused
def _slopes(
    scores: torch.Tensor, level: torch.Tensor, by_chance: torch.Tensor, shift: torch.Tensor, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """The probabilities again, and the gradient by the unscaled scores."""
    place = torch.arange(scores.shape[-1], device=scores.device)
    seen = place[None, :] <= place[:, None]
    chance = torch.where(seen, (scores.float() * scale - level).exp(), 0.0)
    slope = chance * (by_chance.float() - shift) * scale
    return chance.to(scores.dtype), slope.to(scores.dtype)


class _Products(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, layout: Plan, scale: float) -> Any:
        kinds = key.shape[1]
        parts, levels = [], []
        for group in layout.groups:
            q, k, v = (_rows(x, group, kinds) for x in (query, key, value))
            chance, level = _soften(_square(q @ k.transpose(1, 2), group), scale)
            parts.append(_places(chance.reshape(len(q), -1, group.width) @ v, group, kinds))
            levels.append(level)
        joined = parts[0] if len(parts) == 1 else torch.cat(parts)
        out = joined if layout.collect is None else joined.index_select(0, layout.collect)
        ctx.save_for_backward(query, key, value, out, *levels)
        ctx.layout, ctx.scale = layout, scale
        return out

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        query, key, value, out, *levels = ctx.saved_tensors
        layout, scale, kinds = ctx.layout, ctx.scale, key.shape[1]
        shift = (grad.float() * out.float()).sum(-1, keepdim=True)
        found: list[list[torch.Tensor]] = [[], [], []]
        for group, level in zip(layout.groups, levels, strict=True):
            q, k, v = (_rows(x, group, kinds) for x in (query, key, value))
            g, s = (_rows(x, group, kinds, real=True) for x in (grad, shift))
            by_chance = _square(g @ v.transpose(1, 2), group)
            s = s.view(len(q), -1, group.width, 1)
            chance, slope = _slopes(_square(q @ k.transpose(1, 2), group), level, by_chance, s, scale)
            chance, slope = (x.reshape(len(q), -1, group.width) for x in (chance, slope))
            for place, x in enumerate((slope @ k, slope.transpose(1, 2) @ q, chance.transpose(1, 2) @ g)):
                found[place].append(_places(x, group, kinds))
        return (*(_gather(parts, layout) for parts in found), None, None)


def _rows(x: torch.Tensor, group: Group, kinds: int, *, real: bool = False) -> torch.Tensor:
    """(T, H, D) -> [nG, rW, D], heads that share a key one after the other; `real`: 0 where nothing is read."""
    laid = spread(x, group)
    if real and group.real is not None:
        laid = laid * group.real[:, :, None, None]
    laid = laid.transpose(1, 2)  # n, H, W, D
    return laid.reshape(group.count * kinds, -1, laid.shape[-1])


def _square(scores: torch.Tensor, group: Group) -> torch.Tensor:
    return scores.view(len(scores), -1, group.width, group.width)


def _places(x: torch.Tensor, group: Group, kinds: int) -> torch.Tensor:
    """The inverse of `_rows`, one row a place: (n * W, H, D)."""
    return x.view(group.count, -1, group.width, x.shape[-1]).transpose(1, 2).flatten(0, 1)


def _gather(parts: list[torch.Tensor], layout: Plan) -> torch.Tensor:
    """The sums over the places of each token: (T, H, D)."""
    joined = parts[0] if len(parts) == 1 else torch.cat(parts)
    found = joined if layout.collect is None else joined.index_select(0, layout.collect)
    if layout.again is not None:
        found = found.index_add(0, layout.again[1], joined.index_select(0, layout.again[0]))
    return found
