"""The training loop, top to bottom; what one step does is in `step`, what is looked at meanwhile in `watch`."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from tuneloop.config import TrainConfig
from tuneloop.console import progress, say, warn
from tuneloop.errors import Interrupted
from tuneloop.store import append_jsonl, read_jsonl, write_text
from tuneloop.train import checkpoint
from tuneloop.train.guards import Explosion
from tuneloop.train.items import steps_of
from tuneloop.train.optim import Optimizer
from tuneloop.train.quicken import quicken
from tuneloop.train.state import State, Trainer
from tuneloop.train.step import take_step, valid_loss
from tuneloop.train.trackers import trackers
from tuneloop.train.view import View
from tuneloop.train.watch import look

Told = Callable[[dict[str, Any]], None]


def fit(t: Trainer, told: Told | None = None) -> State:
    """Trains to the end of the plan or until the metric gets no better; leaves the best weights in the model.

    `told` gets every line of the log; what it raises ends the run, resumable.
    """
    config, world = t.config, t.world
    plan = _plan(t)
    per_epoch = max(1, round(len(plan) / max(1.0, config.num_train_epochs)))
    if not config.batch_tokens:
        per_epoch = math.ceil(len(t.train) / t.step_size)
    quicken(t, plan)
    optimizer, state = Optimizer(t.model, config, t.rate), State()
    _resume(t, optimizer, state)
    explosion = Explosion(t.model.get_input_embeddings().weight.shape[0])
    with (
        progress("train", len(plan)) as bar,
        trackers(config.report_to if world.first else [], t.out, config.model_dump()) as track,
        _signals() as caught,
    ):
        view = View(bar, t.model, world.size)
        bar.advance(state.step)
        while state.step < len(plan) and not _stale(config, state):
            items = [t.train[i] for i in plan[state.step]]
            row = take_step(t, optimizer, state, items, len(plan))
            state.step += 1
            view.note(row, items)
            last = state.step == len(plan)
            if state.step % (config.eval_steps or per_epoch) == 0 or last:
                with optimizer.settled():
                    row |= _evaluate(t, state)
            if world.first:
                append_jsonl(t.out / "log.jsonl", row)
                track(row)
            view.show(row)
            stop = world.highest(caught[0] if caught else 0)
            better = state.best_step == state.step
            if better or last or _stale(config, state) or stop or state.step % (config.save_steps or per_epoch) == 0:
                _save(t, optimizer, state)
            if stop:
                raise Interrupted(stop, where=str(t.out), cure="run the same command again: it resumes")
            if told:
                told(row)
            explosion.see(row["loss"], state.step, str(t.out))
    if _stale(config, state):
        say(f"stopped at step {state.step}: {config.metric_for_best_model} got no better in {state.stale} evaluations")
    _take_best(t, optimizer, state)
    optimizer.settle()
    return state


def _plan(t: Trainer) -> list[list[int]]:
    """The examples of every step."""
    return steps_of(t.config, t.train, t.step_size)


def _stale(config: TrainConfig, state: State) -> bool:
    return config.early_stopping_patience is not None and state.stale >= config.early_stopping_patience


def _evaluate(t: Trainer, state: State) -> dict[str, float]:
    """Valid loss and task scores at this step, judged by the metric for the best model."""
    found: dict[str, float] = {}
    if t.valid:
        found["valid_loss"] = valid_loss(t)
    if t.watch:
        found |= look(t.watch, t.model, state.step, t.out / "samples.jsonl" if t.world.first else None)
    metric = t.config.metric_for_best_model
    if metric in found:
        state.judge(found[metric], greater_is_better=metric != "valid_loss")
    return found


def _save(t: Trainer, optimizer: Optimizer, state: State) -> None:
    kept = {name: value for name, value in asdict(state).items() if name != "step"}
    checkpoint.save(t.out, state.step, optimizer.tensors(), kept, t.world)
    if t.world.first:
        checkpoint.prune(t.out, t.config.save_total_limit, state.best_step)


def _resume(t: Trainer, optimizer: Optimizer, state: State) -> None:
    like = dict(optimizer.weights)
    loaded = checkpoint.load_newest(t.out, like, t.world)
    logs = [t.out / name for name in ("log.jsonl", "samples.jsonl")]
    if loaded is None:
        if t.world.first:
            for log in logs:
                log.unlink(missing_ok=True)
        return
    tensors, saved = loaded
    optimizer.load(tensors)
    checkpoint.restore_random(tensors, saved, t.config.seed, t.world)
    state.step, state.best_step, state.stale = saved["step"], saved["best_step"], saved["stale"]
    state.best_value, state.rows = saved["best_value"], saved["rows"]
    # Steps after the checkpoint are taken again, so their lines go.
    for log in logs if t.world.first else []:
        if log.is_file():
            rows = [row for row in read_jsonl(log) if row["step"] <= state.step]
            write_text(log, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    say(f"resumed after step {state.step}")


def _take_best(t: Trainer, optimizer: Optimizer, state: State) -> None:
    if not t.config.load_best_model_at_end or state.best_step in (None, state.step):
        return
    loaded = checkpoint.load(t.out / f"checkpoint-{state.best_step}", dict(optimizer.weights), t.world)
    if loaded is None:
        warn(f"checkpoint-{state.best_step} is missing or broken: the last weights are kept, not the best")
    else:
        optimizer.load(loaded[0])
        metric = t.config.metric_for_best_model
        say(f"best {metric} {state.best_value:.4f} at step {state.best_step}: these weights are kept")


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
