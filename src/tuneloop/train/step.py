"""One optimiser step over a set of examples; how they are laid out never changes the result."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from tuneloop.errors import DataError
from tuneloop.train.batch import Item, targets
from tuneloop.train.objectives import Outcome
from tuneloop.train.optim import Optimizer, factor
from tuneloop.train.state import State, Trainer


def take_step(t: Trainer, optimizer: Optimizer, state: State, items: list[Item], steps: int) -> dict[str, Any]:
    """One optimiser step; the gradient is that of the objective's total over its mass. Returns the line for the log."""
    started = time.perf_counter()
    t.model.train()
    outcomes = backward(t, optimizer, items)
    share = factor(state.step, steps, t.config)
    norm = optimizer.step(share)
    loss, means = _read(outcomes, t.objective.mass(items), len(items))
    _guard(loss, norm, state.step + 1, items)
    _note_rows(state, outcomes)
    seconds = time.perf_counter() - started
    tokens = sum(len(item.input_ids) for item in items)
    return {
        "step": state.step + 1,
        "loss": loss,
        **means,
        "learning_rate": t.rate * share,
        "grad_norm": norm,
        "examples": len(items),
        "tokens": tokens,
        "trained_tokens": sum(len(targets(item)) for item in items),
        "tokens_per_s": round(tokens / seconds, 1),
    }


def backward(t: Trainer, optimizer: Optimizer, items: list[Item]) -> list[tuple[list[Item], Outcome]]:
    """Adds the gradient of the step to the weights; the outcome of each forward pass, on the device."""
    parts = t.parts(items)
    if t.objective.note:
        t.objective.note(t.model, parts)
    mass = t.objective.mass(items)
    outcomes = []
    for part in parts:
        outcome = t.objective.outcome(t.model, t.layout(part), part)
        (outcome.total / mass).backward()
        optimizer.gather()
        outcome.total = outcome.total.detach()
        outcomes.append((part, outcome))
    return outcomes


def _read(outcomes: list[tuple[list[Item], Outcome]], mass: float, count: int) -> tuple[float, dict[str, float]]:
    """Loss of the step and means of what else the objective tells."""
    found = [outcome for _, outcome in outcomes]
    loss = torch.stack([outcome.total for outcome in found]).sum().item() / mass
    names = list(found[0].sums)
    return loss, {name: torch.stack([o.sums[name] for o in found]).sum().item() / count for name in names}


def _guard(loss: float, norm: float, step: int, items: list[Item]) -> None:
    if math.isfinite(loss) and math.isfinite(norm):
        return
    raise DataError(
        351,
        f"the loss ({loss}) or its gradient ({norm}) is not finite at step {step}",
        where="examples " + ", ".join(item.id for item in items[:8]),
        cure="lower train.learning_rate, or train in float32; the last checkpoint is kept",
    )


def _note_rows(state: State, outcomes: list[tuple[list[Item], Outcome]]) -> None:
    for part, outcome in outcomes:
        for item, mean in zip(part, outcome.rows.tolist(), strict=True):
            seen, first, _ = state.rows.get(item.id, [0, mean, mean])
            state.rows[item.id] = [seen + 1, first, mean]


@torch.no_grad()
def valid_loss(t: Trainer) -> float:
    """The objective over the valid split."""
    t.model.eval()
    parts = t.parts(t.valid)
    if t.objective.note:
        t.objective.note(t.model, parts)
    totals = [t.objective.outcome(t.model, t.layout(part), part).total for part in parts]
    return torch.stack(totals).sum().item() / t.objective.mass(t.valid)
