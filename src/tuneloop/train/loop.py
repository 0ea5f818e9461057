"""The training loop, top to bottom; what one step does is in `step`."""

from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from tuneloop.config import TrainConfig
from tuneloop.console import progress, say, warn
from tuneloop.errors import Interrupted
from tuneloop.store import append_jsonl, read_jsonl, write_text
from tuneloop.train import checkpoint
from tuneloop.train.batch import plan_steps
from tuneloop.train.optim import Optimizer
from tuneloop.train.state import State, Trainer
from tuneloop.train.step import take_step, valid_loss


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
            row = take_step(t, optimizer, state, [t.train[i] for i in plan[state.step]], len(plan))
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
