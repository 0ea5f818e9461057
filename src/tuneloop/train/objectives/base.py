"""What an objective is: the sum it minimises over a pass, and the count that the step divides it by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from tuneloop.train.batch import Item, Layout, targets


@dataclass(slots=True)
class Outcome:
    """What one forward pass of B examples gives."""

    total: torch.Tensor  # () the weighted sum of the losses; its gradient is the pass's share of the step's
    rows: torch.Tensor  # [B] the mean loss of each example, detached
    # () each, detached: sums over the B examples, shown as means over the step (margin, accuracy, ...)
    sums: dict[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss. The gradient of a step is that of the sum of all totals over `mass` of all its examples.

    So neither accumulation, packing nor ranks change it. `before`, if any, gets all examples before the first step (on
    the untouched weights, also when a run goes on), `note` all examples of a step before its passes; their last
    argument lays examples out in forward passes.
    """

    name: str
    outcome: Callable[[Any, Layout, list[Item]], Outcome]
    mass: Callable[[list[Item]], float]
    note: Callable[[Any, list[Item], Any], None] | None = None
    before: Callable[[Any, list[Item], Any], None] | None = None


def trained_tokens(items: list[Item]) -> float:
    """Mass of objectives on tokens: trained tokens, each with the weight of its example."""
    return sum(item.weight * len(targets(item)) for item in items)


def examples(items: list[Item]) -> float:
    """Mass of objectives on whole examples."""
    return sum(item.weight for item in items)


def weights(items: list[Item], like: torch.Tensor) -> torch.Tensor:
    """[B] the weight of each example."""
    return torch.tensor([item.weight for item in items], dtype=torch.float32, device=like.device)
