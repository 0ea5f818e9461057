"""The training loop, top to bottom. One step is a set of examples; how they are laid out never changes the result."""

from __future__ import annotations

import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tuneloop.config import TrainConfig
from tuneloop.console import progress, say, warn
from tuneloop.errors import DataError, Interrupted
from tuneloop.store import append_jsonl, read_jsonl, write_text
from tuneloop.train import checkpoint
from tuneloop.train.batch import Item, Layout, pack, pad, plan_steps, targets
from tuneloop.train.objective import token_losses, weighted
from tuneloop.train.optim import Optimizer, factor


@dataclass
class State:
    """What a checkpoint holds beside tensors."""

    step: int = 0
    best_step: int | None = None
    best_loss: float = math.inf
    stale: int = 0  # evaluations without a better valid loss
    rows: dict[str, list[float]] = field(default_factory=dict)  # id -> [times seen, first loss, last loss]

    def as_dict(self) -> dict[str, Any]:
        best = None if math.isinf(self.best_loss) else self.best_loss
        return {"best_step": self.best_step, "best_loss": best, "stale": self.stale, "rows": self.rows}


@dataclass
class Trainer:
    """Everything one run needs; `fit` is the loop."""

    model: Any
    config: TrainConfig
    train: list[Item]
    valid: list[Item]
    out: Path
    rate: float
    packing: bool
    pad_id: int

    def layouts(self, items: list[Item]) -> Iterator[tuple[list[Item], Layout]]:
        """The forward passes of a step: at most `per_device_train_batch_size` examples each, near lengths together."""
        items = sorted(items, key=lambda item: len(item.input_ids))
        size = self.config.per_device_train_batch_size
        device = self.model.device
        for start in range(0, len(items), size):
            part = items[start : start + size]
            yield part, pack(part, device) if self.packing else pad(part, self.pad_id, device)


def fit(t: Trainer) -> State:
    """Trains to the end of the plan or until the valid loss stops falling; leaves the best weights in the model."""
    config = t.config
    batch = config.per_device_train_batch_size * config.gradient_accumulation_steps
    plan = plan_steps(len(t.train), batch, config.num_train_epochs, config.max_steps, config.seed)
    per_epoch = math.ceil(len(t.train) / batch)
    optimizer, state = Optimizer(t.model, config, t.rate), State()
    _resume(t, optimizer, state)
    log = t.out / "log.jsonl"
    with progress("train", len(plan)) as bar, _signals() as caught:
        bar.advance(state.step)
        while state.step < len(plan) and not _stale(config, state):
            row = _step(t, optimizer, state, [t.train[i] for i in plan[state.step]], len(plan))
            state.step += 1
            last = state.step == len(plan)
            if t.valid and (state.step % (config.eval_steps or per_epoch) == 0 or last):
                row["valid_loss"] = _validate(t, state)
            append_jsonl(log, row)
            bar.advance(loss=row["loss"], tokens_per_s=row["tokens_per_s"])
            better = state.best_step == state.step
            if better or last or _stale(config, state) or caught or state.step % (config.save_steps or per_epoch) == 0:
                checkpoint.save(t.out, state.step, optimizer.tensors(), state.as_dict())
                checkpoint.prune(t.out, config.save_total_limit, state.best_step)
            if caught:
                raise Interrupted(caught[0], where=str(t.out), cure="run the same command again: it resumes")
    if _stale(config, state):
        say(f"stopped at step {state.step}: valid loss has not fallen for {state.stale} evaluations")
    _take_best(t, optimizer, state)
    return state


def _stale(config: TrainConfig, state: State) -> bool:
    return config.early_stopping_patience is not None and state.stale >= config.early_stopping_patience


def _step(t: Trainer, optimizer: Optimizer, state: State, items: list[Item], steps: int) -> dict[str, Any]:
    """One optimiser step; the gradient is that of the mean loss over all trained tokens of the step."""
    started = time.perf_counter()
    t.model.train()
    trained = sum(item.weight * len(targets(item)) for item in items)
    total = 0.0
    for part, layout in t.layouts(items):
        losses = token_losses(t.model, layout)
        loss = weighted(losses, layout, [item.weight for item in part]) / trained
        loss.backward()
        optimizer.gather()
        total += loss.item()
        _note_rows(state, part, layout, losses.detach())
    share = factor(state.step, steps, t.config)
    _guard(total, state.step + 1, items)
    norm = optimizer.step(share)
    _guard(norm, state.step + 1, items)
    seconds = time.perf_counter() - started
    tokens = sum(len(item.input_ids) for item in items)
    return {
        "step": state.step + 1,
        "loss": total,
        "learning_rate": t.rate * share,
        "grad_norm": norm,
        "examples": len(items),
        "tokens": tokens,
        "trained_tokens": sum(len(targets(item)) for item in items),
        "tokens_per_s": round(tokens / seconds, 1),
    }


def _guard(value: float, step: int, items: list[Item]) -> None:
    if not math.isfinite(value):
        raise DataError(
            351,
            f"the loss or its gradient is {value} at step {step}",
            where="examples " + ", ".join(item.id for item in items[:8]),
            cure="lower train.learning_rate, or train in float32; the last checkpoint is kept",
        )


def _note_rows(state: State, part: list[Item], layout: Layout, losses: torch.Tensor) -> None:
    sums = torch.zeros(len(part), device=losses.device).index_add_(0, layout.owner, losses)
    counts = torch.bincount(layout.owner, minlength=len(part)).clamp(min=1)
    for item, mean in zip(part, (sums / counts).tolist(), strict=True):
        seen, first, _ = state.rows.get(item.id, [0, mean, mean])
        state.rows[item.id] = [seen + 1, first, mean]


@torch.no_grad()
def valid_loss(t: Trainer) -> float:
    """Mean loss over the trained tokens of the valid split."""
    t.model.eval()
    total = count = 0.0
    for _, layout in t.layouts(t.valid):
        losses = token_losses(t.model, layout)
        total, count = total + losses.sum().item(), count + len(losses)
    return total / count


def _validate(t: Trainer, state: State) -> float:
    loss = valid_loss(t)
    if loss < state.best_loss:
        state.best_step, state.best_loss, state.stale = state.step, loss, 0
    else:
        state.stale += 1
    return loss


def _resume(t: Trainer, optimizer: Optimizer, state: State) -> None:
    loaded = checkpoint.load_newest(t.out)
    log = t.out / "log.jsonl"
    if loaded is None:
        log.unlink(missing_ok=True)
        return
    tensors, saved = loaded
    optimizer.load(tensors)
    checkpoint.restore_random(tensors)
    state.step, state.best_step, state.stale = saved["step"], saved["best_step"], saved["stale"]
    state.best_loss = math.inf if saved["best_loss"] is None else saved["best_loss"]
    state.rows = saved["rows"]
    # Steps after the checkpoint are taken again, so their lines go.
    rows = [row for row in read_jsonl(log) if row["step"] <= state.step] if log.is_file() else []
    write_text(log, "".join(json.dumps(row) + "\n" for row in rows))
    say(f"resumed after step {state.step}")


def _take_best(t: Trainer, optimizer: Optimizer, state: State) -> None:
    if not t.config.load_best_model_at_end or state.best_step in (None, state.step):
        return
    loaded = checkpoint.load(t.out / f"checkpoint-{state.best_step}")
    if loaded is None:
        warn(f"checkpoint-{state.best_step} is missing or broken: the last weights are kept, not the best")
    else:
        optimizer.load(loaded[0])
        say(f"best valid loss {state.best_loss:.4f} at step {state.best_step}: these weights are kept")


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM are noted; the loop saves at the end of the step and stops."""
    caught: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        before = [signal.signal(n, lambda number, _: caught.append(number)) for n in numbers]
    except ValueError:  # not the main thread: somebody else handles signals
        yield caught
        return
    try:
        yield caught
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
