"""The learning rate: its peak where none was given, and its course."""

from __future__ import annotations

import math

from tuneloop.config import TrainConfig


def auto_rate(method: str, parameters: int) -> tuple[float, str]:
    """A learning rate and the reason for it.

    Full: 2e-5 from a billion parameters up, growing with one over the square root of the size below, at most 1e-3.
    LoRA: ten times that, because an adapter starts at no effect and has few weights.
    """
    full = min(1e-3, 2e-5 * math.sqrt(max(1.0, 1e9 / max(1, parameters))))
    size = f"{parameters / 1e6:,.2f}M parameters"
    if method == "lora":
        return float(f"{10 * full:.2g}"), f"chosen for an adapter on {size}: ten times that of a full fine-tune"
    return float(f"{full:.2g}"), f"chosen for all of {size}: smaller models bear larger steps"


def factor(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak rate at 0-based `step` of `steps`: linear warm-up, then the named course.

    warmup_stable_decay falls linearly to 0 over the last `lr_decay_ratio` of the steps. Schedule-free AdamW averages
    instead of falling, so it has the warm-up alone.
    """
    warm = round(steps * config.warmup_ratio)
    if step < warm:
        return (step + 1) / (warm + 1)
    kind = "constant" if config.optim == "schedule_free" else config.lr_scheduler_type
    left = (step - warm) / max(1, steps - warm)
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * left))
    if kind == "warmup_stable_decay":
        return min(1.0, (steps - step) / max(1.0, steps * config.lr_decay_ratio))
    return 1.0 if kind == "constant" else 1.0 - left
