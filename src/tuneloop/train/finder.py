"""Settings measured on the model and data at hand: a learning rate, and how many examples a step should hold."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from tuneloop.console import progress
from tuneloop.errors import DataError
from tuneloop.train.batch import Item
from tuneloop.train.optim import Optimizer
from tuneloop.train.state import State, Trainer
from tuneloop.train.step import backward, take_step

STEPS = 48  # of the range test, from a hundredth of the usual rate to a hundred times it
SPAN = 100.0
BATCHES = 16  # small batches whose gradients are compared


@dataclass(frozen=True, slots=True)
class Found:
    """A value, why, and what was measured."""

    value: float
    reason: str
    curve: list[tuple[float, float]]


def learning_rate(t: Trainer) -> Found:
    """The range test (Smith 2015): the rate grows from step to step, the loss is smoothed.

    Taken is a quarter of the rate at which the smoothed loss is lowest: beyond it steps do harm, and the schedule's
    peak holds for longer than the test did. The model is left as it was. Raises DataError 353 where no rate helps.
    """
    usual, curve, smooth = t.rate, [], 0.0
    batches = _batches(t, t.step_size)
    with _untouched(t), progress("learning rate", STEPS) as bar:
        t.config = t.config.model_copy(update={"lr_scheduler_type": "constant", "warmup_ratio": 0.0})
        optimizer = Optimizer(t.model, t.config, usual)
        for i in range(STEPS):
            rate = usual / SPAN * (SPAN * SPAN) ** (i / (STEPS - 1))
            loss = _step_at(t, optimizer, next(batches), rate)
            if loss is None:
                break
            smooth = 0.8 * smooth + 0.2 * loss
            curve.append((rate, smooth / (1 - 0.8 ** (i + 1))))
            if curve[-1][1] > 1.5 * min(value for _, value in curve) and i > 8:
                break
            bar.advance(1)
    lowest = min(range(len(curve)), key=lambda i: curve[i][1], default=0)
    if lowest < 3:
        raise DataError(
            353,
            "no learning rate lowers the loss",
            where="train.learning_rate=auto",
            expected=f"a fall somewhere between {usual / SPAN:.1g} and {usual * SPAN:.1g}",
            cure="give a rate yourself, and look at the rows: tuneloop data --show 3",
        )
    rate = float(f"{curve[lowest][0] / 4:.2g}")
    reason = f"a quarter of {curve[lowest][0]:.2g}, where the loss was lowest in {len(curve)} steps of growing rate"
    return Found(rate, reason, curve)


def _step_at(t: Trainer, optimizer: Optimizer, items: list[Item], rate: float) -> float | None:
    """Loss before the step; None once it is no number."""
    t.rate = optimizer.rate = rate
    try:
        loss = float(take_step(t, optimizer, State(), items, 10**9)["loss"])
    except DataError:
        return None
    return loss if math.isfinite(loss) else None


def noise_scale(t: Trainer) -> Found:
    """Examples a step at which noise and signal of the gradient are equal (McCandlish 2018, B_simple).

    From the squared norms of gradients of BATCHES small batches and of their mean: both are unbiased. `curve` holds the
    two norms by batch size. At the start of a run; it grows later, so this is a floor.
    """
    size = max(1, min(t.config.per_device_train_batch_size, len(t.train) // BATCHES))
    total: dict[str, torch.Tensor] = {}
    squares, batches = 0.0, _batches(t, size)
    with _untouched(t), progress("gradient noise", BATCHES) as bar:
        optimizer = Optimizer(t.model, t.config, t.rate)
        t.model.train()
        for _ in range(BATCHES):
            backward(t, optimizer, next(batches))
            for (name, _), master in zip(optimizer.weights, optimizer.masters, strict=True):
                if master.grad is None:
                    continue
                squares += float(master.grad.double().square().sum()) / BATCHES
                total[name] = total[name].add_(master.grad) if name in total else master.grad.clone()
                master.grad = None
            bar.advance(1)
    large = size * BATCHES
    whole = sum(float((g / BATCHES).double().square().sum()) for g in total.values())
    signal = (large * whole - size * squares) / (large - size)
    noise = (squares - whole) / (1 / size - 1 / large)
    scale = noise / signal if signal > 0 else float("inf")
    shown = f"{scale:.0f}" if scale < large else f"more than {large}"
    reason = f"signal and noise of the gradient are equal at {shown} examples, measured on {large}"
    return Found(min(scale, float(large)), reason, [(float(size), squares), (float(large), whole)])


def accumulation(found: Found, micro: int, examples: int) -> int:
    """Passes a step so that it holds about as many examples as the noise scale says, within reason for the data.

    At least 8 examples, at most 512 and a twentieth of the data: fewer than 20 steps an epoch teach little.
    """
    most = max(8, min(512, examples // 20))
    wanted = min(most, max(8.0, found.value))
    return max(1, round(wanted / micro))


def _batches(t: Trainer, size: int) -> Iterator[list[Item]]:
    """Random batches, the same for the same seed."""
    rng = random.Random(f"{t.config.seed}/finder")
    while True:
        order = list(t.train)
        rng.shuffle(order)
        yield from (order[i : i + size] for i in range(0, max(1, len(order) - size + 1), size))


@contextmanager
def _untouched(t: Trainer) -> Iterator[None]:
    """Weights, settings and random state are put back at the end."""
    rate, config, random_state = t.rate, t.config, torch.get_rng_state()
    kept: dict[str, Any] = {n: p.detach().clone() for n, p in t.model.named_parameters() if p.requires_grad}
    try:
        yield
    finally:
        t.rate, t.config = rate, config
        with torch.no_grad():
            for name, weight in t.model.named_parameters():
                weight.grad = None
                if name in kept:
                    weight.copy_(kept[name])
        torch.set_rng_state(random_state)
