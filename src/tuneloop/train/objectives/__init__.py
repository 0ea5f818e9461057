"""What a step minimises, by the name in `train.objective`."""

from __future__ import annotations

from typing import Any

from tuneloop.config import TrainConfig
from tuneloop.train.objectives.base import Objective, Outcome
from tuneloop.train.objectives.distill import distill
from tuneloop.train.objectives.kto import kto
from tuneloop.train.objectives.preference import dpo, orpo, simpo
from tuneloop.train.objectives.reward import reward
from tuneloop.train.objectives.sft import sft

__all__ = ["Objective", "Outcome", "build"]


def build(config: TrainConfig, teacher: Any = None) -> Objective:
    """The objective that the config names, with its settings; `teacher` is a model, for distillation."""
    makers = {
        "sft": lambda: sft(config.label_smoothing_factor, config.z_loss),
        "dpo": lambda: dpo(config.beta, config.label_smoothing_factor),
        "orpo": lambda: orpo(config.beta),
        "simpo": lambda: simpo(config.beta, config.simpo_gamma),
        "kto": lambda: kto(config.beta, config.desirable_weight, config.undesirable_weight, config.max_length),
        "reward": lambda: reward(config.center_rewards_coefficient),
        "distill": lambda: distill(teacher, config.distill_beta, config.distill_temperature),
    }
    return makers[config.objective]()
