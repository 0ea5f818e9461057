"""One optimiser step over a set of examples; how they are laid out never changes the result."""

from __future__ import annotations

import math
import time
from typing import Any

import torch

from tuneloop.errors import DataError
from tuneloop.train.batch import Item, targets
from tuneloop.train.blame import blame
from tuneloop.train.objectives import Outcome
from tuneloop.train.optim import Optimizer
from tuneloop.train.schedule import factor
from tuneloop.train.state import State, Trainer


def take_step(t: Trainer, optimizer: Optimizer, state: State, items: list[Item], steps: int) -> dict[str, Any]:
    """One optimiser step; the gradient is that of the objective's total over its mass. Returns the line for the log."""
    started = time.perf_counter()
    t.model.train()
    outcomes = backward(t, optimizer, items)
    t.world.add_gradients(optimizer.masters)
    share = factor(state.step, steps, t.config)
    norm = optimizer.step(share)
    loss, means, rows = _read(t, outcomes, items)
    _guard(t, loss, norm, state.step + 1, items)
    _note_rows(state, items, rows)
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
    if t.objective.note:
        t.objective.note(t.model, items, t.passes)
    mass = t.objective.mass(items)
    passes, empty = t.mine(items)
    outcomes = []
    for part in passes:
        with t.keeping():
            outcome = t.objective.outcome(t.model, t.layout(part), part)
        (outcome.total / mass).backward()
        outcome.total = outcome.total.detach()
        outcomes.append((part, outcome))
    for _ in range(empty):
        # The other processes make one pass more, and shards are gathered in every pass.
        outcome = t.objective.outcome(t.model, t.layout(items[:1]), items[:1])
        (outcome.total * 0).backward()
        outcomes.append(([], _nothing(outcome)))
    return outcomes


def _nothing(outcome: Outcome) -> Outcome:
    """The same names with nothing to add."""
    zeros = {name: torch.zeros_like(value) for name, value in outcome.sums.items()}
    return Outcome(torch.zeros_like(outcome.total), outcome.rows[:0], zeros)


def _read(
    t: Trainer, outcomes: list[tuple[list[Item], Outcome]], items: list[Item]
) -> tuple[float, dict[str, float], list[float]]:
    """Loss of the step, means of what else the objective tells, and the loss of each example, over all processes."""
    found = [outcome for _, outcome in outcomes]
    names = list(found[0].sums)
    sums = [torch.stack([o.total for o in found]).sum()] + [
        torch.stack([o.sums[n] for o in found]).sum() for n in names
    ]
    place = {id(item): i for i, item in enumerate(items)}
    rows = [0.0] * len(items)
    means = torch.cat([outcome.rows.float() for outcome in found]).tolist()
    for item, mean in zip((item for part, _ in outcomes for item in part), means, strict=True):
        rows[place[id(item)]] = mean
    own = [float(value) for value in torch.stack([s.float() for s in sums]).tolist()]
    loss, *more = t.world.total([*own, *rows])
    told = {name: value / len(items) for name, value in zip(names, more, strict=False)}
    return loss / t.objective.mass(items), told, more[len(names) :]


def _guard(t: Trainer, loss: float, norm: float, step: int, items: list[Item]) -> None:
    """Raises DataError 351 with the place that it came from and the examples of that pass."""
    if math.isfinite(loss) and math.isfinite(norm):
        return
    place, ids = blame(t, items)
    raise DataError(
        351,
        f"the loss ({loss}) or its gradient ({norm}) is not finite at step {step}",
        where=f"{place}; examples " + ", ".join(ids[:8]),
        cure="lower train.learning_rate, or train in float32; the last checkpoint is kept",
    )


def _note_rows(state: State, items: list[Item], means: list[float]) -> None:
    for item, mean in zip(items, means, strict=True):
        seen, first, _, later = state.rows.get(item.id, [0, mean, mean, mean])
        # The first loss is mostly about the form of the answer; what comes after it shows which rows resist.
        later = (later * (seen - 1) + mean) / seen if seen else mean
        state.rows[item.id] = [seen + 1, first, mean, later]


@torch.no_grad()
def valid_loss(t: Trainer) -> float:
    """The objective over the valid split, each process a share of it."""
    t.model.eval()
    if t.objective.note:
        t.objective.note(t.model, t.valid, t.passes)
    passes, empty = t.mine(t.valid)
    total = 0.0
    for part in passes:
        total += t.objective.outcome(t.model, t.layout(part), part).total.item()
    for _ in range(empty):
        t.objective.outcome(t.model, t.layout(t.valid[:1]), t.valid[:1])
    return t.world.total([total])[0] / t.objective.mass(t.valid)
