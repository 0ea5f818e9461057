"""Cross-entropy of the trained tokens: instruction tuning, and continued pre-training where every token is trained."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.base import Objective, Outcome, trained_tokens, weights
from tuneloop.train.objectives.tokens import token_losses
from tuneloop.train.project import Shape


def sft(label_smoothing: float = 0.0, z_loss: float = 0.0) -> Objective:
    return Objective("sft", partial(_outcome, Shape(label_smoothing, z_loss)), trained_tokens)


def _outcome(shape: Shape, model: Any, layout: Layout, items: list[Item]) -> Outcome:
    scale = weights(items, layout.source)[layout.owner]
    total, losses = token_losses(model, layout, scale, shape)
    return Outcome(total, row_means(losses, layout.owner, len(items)))


def row_means(losses: torch.Tensor, owner: torch.Tensor, count: int) -> torch.Tensor:
    """[count] the mean of each text's token losses."""
    sums = torch.zeros(count, device=losses.device).index_add_(0, owner, losses)
    return sums / torch.bincount(owner, minlength=count).clamp(min=1)
