"""A reward model: one number for a text, read at its last token (Bradley-Terry; Ouyang et al. 2022, eq. 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import logsigmoid

from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.base import Objective, Outcome, examples
from tuneloop.train.objectives.preference import paired
from tuneloop.train.objectives.tokens import hidden_states


def reward(center: float = 0.0) -> Objective:
    """`center` times the squared sum of both rewards keeps them around 0 (Eisenstein et al. 2023)."""

    def outcome(model: Any, layout: Layout, items: list[Item]) -> Outcome:
        rewards = text_rewards(model, layout).view(-1, 2)
        losses = -logsigmoid(rewards[:, 0] - rewards[:, 1])
        if center:
            losses = losses + center * rewards.sum(-1).square()
        return paired(losses, rewards, items)

    return Objective("reward", outcome, examples)


def text_rewards(model: Any, layout: Layout) -> torch.Tensor:
    """[texts] float32 rewards of a sequence classifier with one label."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    decoder = getattr(inner, inner.base_model_prefix)
    width = layout.input_ids.shape[1]
    last = [text[-1] + (i * width if layout.mask is not None else 0) for i, text in enumerate(layout.texts)]
    hidden = hidden_states(decoder, layout)[torch.tensor(last, device=layout.input_ids.device)]
    found: torch.Tensor = inner.score(hidden)
    return found[:, 0].float()
