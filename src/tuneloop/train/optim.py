"""AdamW over float32 master weights, the schedule and clipping."""

from __future__ import annotations

import math
from typing import Any

import torch

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


class Optimizer:
    """AdamW on float32 copies of low-precision weights; float32 weights are updated in place."""

    def __init__(self, model: torch.nn.Module, config: TrainConfig, rate: float) -> None:
        self.weights = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for _, p in self.weights]
        # Vectors (norms, biases) are not decayed.
        decayed = [m for m in self.masters if m.ndim >= 2]
        others = [m for m in self.masters if m.ndim < 2]
        groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.rate, self.max_norm = rate, config.max_grad_norm
        fused = all(m.device.type in ("cpu", "cuda") for m in self.masters)
        betas = (config.adam_beta1, config.adam_beta2)
        self.adam = torch.optim.AdamW(
            [g for g in groups if g["params"]], lr=rate, betas=betas, eps=config.adam_epsilon, fused=fused
        )

    def gather(self) -> None:
        """After each backward: adds low-precision gradients to float32 ones, so accumulation adds no rounding."""
        for (_, weight), master in zip(self.weights, self.masters, strict=True):
            if master is weight or weight.grad is None:
                continue
            master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
            weight.grad = None

    def step(self, factor: float) -> float:
        """One update at `factor` times the peak rate; returns the gradient norm before clipping.

        A norm that is not finite changes nothing.
        """
        limit = self.max_norm if self.max_norm > 0 else math.inf
        norm = torch.nn.utils.clip_grad_norm_(self.masters, limit)
        if not torch.isfinite(norm):
            return float(norm)
        for group in self.adam.param_groups:
            group["lr"] = self.rate * factor
        self.adam.step()
        with torch.no_grad():
            for (_, weight), master in zip(self.weights, self.masters, strict=True):
                if master is not weight:
                    weight.copy_(master)
                weight.grad = master.grad = None
        return float(norm)

    def tensors(self) -> dict[str, torch.Tensor]:
        """All state by name, for a checkpoint."""
        state: dict[str, torch.Tensor] = {}
        for (name, _), master in zip(self.weights, self.masters, strict=True):
            state[f"master.{name}"] = master.detach()
            for key, value in self.adam.state.get(master, {}).items():
                state[f"adam.{key}.{name}"] = value
        return {name: value.contiguous() for name, value in state.items()}

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`; also writes the model's weights."""
        with torch.no_grad():
            for (name, weight), master in zip(self.weights, self.masters, strict=True):
                master.copy_(state[f"master.{name}"])
                if master is not weight:
                    weight.copy_(master)
                keys = ("step", "exp_avg", "exp_avg_sq")
                found: dict[str, Any] = {k: state[f"adam.{k}.{name}"] for k in keys if f"adam.{k}.{name}" in state}
                if found:
                    self.adam.state[master] = {k: v.clone().to(master.device) for k, v in found.items()}


def factor(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the peak rate at 0-based `step` of `steps`: linear warm-up, then the named decay to 0."""
    warm = round(steps * config.warmup_ratio)
    if step < warm:
        return (step + 1) / (warm + 1)
    left = (step - warm) / max(1, steps - warm)
    if config.lr_scheduler_type == "cosine":
        return 0.5 * (1 + math.cos(math.pi * left))
    return 1.0 if config.lr_scheduler_type == "constant" else 1.0 - left
