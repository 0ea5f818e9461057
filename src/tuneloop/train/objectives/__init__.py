"""What a step minimises, by the name in `train.objective`."""

from __future__ import annotations

from tuneloop.config import TrainConfig
from tuneloop.train.objectives.base import Objective, Outcome
from tuneloop.train.objectives.sft import sft

__all__ = ["Objective", "Outcome", "build"]


def build(config: TrainConfig) -> Objective:
    """The objective that the config names, with its settings."""
    return sft()
