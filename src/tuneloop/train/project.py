"""The output projection at trained positions only, in chunks, with the gradient made in the forward pass.

N trained positions, D width, V vocabulary. No more than `CHUNK` scores stand in memory at once: a chunk of scores is
computed, turned into the gradient of its own loss in place, and used up before the next one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import linear

from tuneloop.train.fuse import fused

CHUNK = 2**24  # scores of one chunk: 32 MiB in bfloat16


@dataclass(frozen=True, slots=True)
class Shape:
    """What is added to plain cross-entropy."""

    label_smoothing: float = 0.0
    z_loss: float = 0.0


PLAIN = Shape()


def summed_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    target: torch.Tensor,
    scale: torch.Tensor,
    shape: Shape = PLAIN,
) -> tuple[torch.Tensor, torch.Tensor]:
    """() the sum of `scale` [N] times the loss at each position, differentiable, and [N] the losses, detached.

    hidden [N, D], weight [V, D], target [N]. Without a weight, `hidden` [N, V] are the scores themselves.
    """
    total, losses = _Summed.apply(hidden, weight, bias, target, scale, shape)  # type: ignore[no-untyped-call]
    return total, losses


def summed(
    hidden: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    scale: torch.Tensor,
    losses_of: Callable[[torch.Tensor, slice], torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """As `summed_losses`, for any losses of float32 scores [n, V] at the positions of a slice."""
    total, losses = _Any.apply(hidden, weight, bias, scale, losses_of)  # type: ignore[no-untyped-call]
    return total, losses


def log_probs(
    hidden: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, target: torch.Tensor
) -> torch.Tensor:
    """[N] float32 log-probabilities of the targets, differentiable; the scores are made again for the gradient."""
    found: torch.Tensor = _LogProbs.apply(hidden, weight, bias, target)  # type: ignore[no-untyped-call]
    return found


def project(hidden: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None) -> torch.Tensor:
    """[n, V] scores."""
    return hidden if weight is None else linear(hidden, weight, bias)


def _vocabulary(hidden: torch.Tensor, weight: torch.Tensor | None) -> int:
    return hidden.shape[1] if weight is None else weight.shape[0]


def chunks(count: int, vocabulary: int) -> list[slice]:
    """Equal parts of the positions, each of at most `CHUNK` scores."""
    parts = max(1, math.ceil(count * vocabulary / CHUNK))
    size = max(1, math.ceil(count / parts))
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]


@fused
def _soften(
    scores: torch.Tensor, target: torch.Tensor, scale: torch.Tensor, label_smoothing: float, z_loss: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """[n] losses, and [n, V] the gradient of scale * loss by the scores."""
    x = scores.float()
    high = x.amax(-1, keepdim=True)
    powers = (x - high).exp()
    total = powers.sum(-1, keepdim=True)
    level = total.log() + high
    hit = torch.arange(x.shape[1], device=x.device)[None] == target[:, None]
    aim = x.gather(1, target[:, None])
    rest = 1.0 - label_smoothing
    losses = level - rest * aim
    slope = torch.ones_like(level)
    if label_smoothing:
        losses = losses - label_smoothing * x.mean(-1, keepdim=True)
    if z_loss:
        losses = losses + z_loss * level.square()
        slope = 1.0 + 2.0 * z_loss * level
    pull = torch.where(hit, rest, 0.0) + label_smoothing / x.shape[1]
    gradient = scale[:, None] * (powers * (slope / total) - pull)
    return losses[:, 0], gradient.to(scores.dtype)


@fused
def _pick(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """[n] log-probabilities of the targets."""
    x = scores.float()
    high = x.amax(-1, keepdim=True)
    level = (x - high).exp().sum(-1, keepdim=True).log() + high
    return (x.gather(1, target[:, None]) - level)[:, 0]


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, target: Any, scale: Any, shape: Shape) -> Any:
        losses = torch.empty(len(target), dtype=torch.float32, device=hidden.device)
        wanted = ctx.needs_input_grad[:3]
        sums = _Gradients(hidden, weight, bias, wanted)
        for part in chunks(len(target), _vocabulary(hidden, weight)):
            scores = project(hidden[part], weight, bias)
            losses[part], gradient = _soften(scores, target[part], scale[part], shape.label_smoothing, shape.z_loss)
            if any(wanted):
                sums.add(part, gradient)
        ctx.sums = sums
        ctx.mark_non_differentiable(losses)
        return (losses * scale).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: Any, _: Any) -> Any:
        return (*ctx.sums.times(grad), None, None, None)


class _Any(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, scale: Any, losses_of: Any) -> Any:
        losses = torch.empty(len(scale), dtype=torch.float32, device=hidden.device)
        sums = _Gradients(hidden, weight, bias, ctx.needs_input_grad[:3])
        for part in chunks(len(scale), _vocabulary(hidden, weight)):
            scores = project(hidden[part], weight, bias)
            with torch.enable_grad():
                found = scores.float().detach().requires_grad_()
                each = losses_of(found, part)
            losses[part] = each.detach()
            if any(ctx.needs_input_grad[:3]):
                sums.add(part, torch.autograd.grad(each, found, scale[part])[0].to(scores.dtype))
        ctx.sums = sums
        ctx.mark_non_differentiable(losses)
        return (losses * scale).sum(), losses

    @staticmethod
    def backward(ctx: Any, grad: Any, _: Any) -> Any:
        return (*ctx.sums.times(grad), None, None)


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, target: Any) -> Any:
        ctx.save_for_backward(hidden, weight, bias, target)
        parts = chunks(len(target), _vocabulary(hidden, weight))
        found = [_pick(project(hidden[part], weight, bias), target[part]) for part in parts]
        return torch.cat(found) if found else hidden.new_zeros(0, dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, grad: Any) -> Any:
        hidden, weight, bias, target = ctx.saved_tensors
        sums = _Gradients(hidden, weight, bias, ctx.needs_input_grad[:3])
        for part in chunks(len(target), _vocabulary(hidden, weight)):
            scores = project(hidden[part], weight, bias)
            sums.add(part, _soften(scores, target[part], -grad[part], 0.0, 0.0)[1])
        return (*sums.times(None), None)


class _Gradients:
    """Sums of the gradients by hidden states, weight and bias over the chunks; None where none is wanted."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, wanted: Any
    ) -> None:
        self.hidden, self.weight = hidden, weight
        self.by_hidden = torch.empty_like(hidden) if wanted[0] else None
        self.by_weight: torch.Tensor | None = None
        self.wants_weight = wanted[1]
        self.by_bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None
        self.bias_dtype = None if bias is None else bias.dtype

    def add(self, part: slice, gradient: torch.Tensor) -> None:
        """gradient [n, V] of the part's scores."""
        if self.weight is None:
            if self.by_hidden is not None:
                self.by_hidden[part] = gradient
            return
        if self.by_hidden is not None:
            torch.mm(gradient, self.weight, out=self.by_hidden[part])
        if self.wants_weight and self.by_weight is None:
            self.by_weight = gradient.t() @ self.hidden[part]
        elif self.by_weight is not None:
            self.by_weight.addmm_(gradient.t(), self.hidden[part])
        if self.by_bias is not None:
            self.by_bias += gradient.float().sum(0)

    def times(self, factor: torch.Tensor | None) -> list[torch.Tensor | None]:
        """The three sums, scaled in place; freed here, so a second backward through the same graph is an error."""
        found = [self.by_hidden, self.by_weight, None if self.by_bias is None else self.by_bias.to(self.bias_dtype)]
        self.by_hidden = self.by_weight = self.by_bias = None
        if factor is not None:
            for one in found:
                if one is not None:
                    one.mul_(factor)
        return found
