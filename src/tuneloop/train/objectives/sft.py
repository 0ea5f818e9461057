"""Cross-entropy of the trained tokens: instruction tuning, and continued pre-training where every token is trained."""

from __future__ import annotations

from typing import Any

import torch

from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.base import Objective, Outcome, trained_tokens, weights
from tuneloop.train.objectives.tokens import token_losses


def sft() -> Objective:
    return Objective("sft", _outcome, trained_tokens)


def _outcome(model: Any, layout: Layout, items: list[Item]) -> Outcome:
    losses = token_losses(model, layout)
    total = (losses * weights(items, losses)[layout.owner]).sum()
    return Outcome(total, row_means(losses.detach(), layout.owner, len(items)))


def row_means(losses: torch.Tensor, owner: torch.Tensor, count: int) -> torch.Tensor:
    """[count] the mean of each text's token losses."""
    sums = torch.zeros(count, device=losses.device).index_add_(0, owner, losses)
    return sums / torch.bincount(owner, minlength=count).clamp(min=1)
