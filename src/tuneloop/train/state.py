"""What a run is made of, and what of it a checkpoint keeps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.config import TrainConfig
from tuneloop.train.batch import Item, Layout, first_fit, pack, pad
from tuneloop.train.distributed import World
from tuneloop.train.objectives import Objective
from tuneloop.train.watch import Watch


@dataclass
class State:
    """What a checkpoint holds beside tensors."""

    step: int = 0
    best_step: int | None = None
    best_value: float | None = None  # of the metric for the best model
    stale: int = 0  # evaluations without a better value
    rows: dict[str, list[float]] = field(default_factory=dict)  # id -> [times seen, first, last, mean after the first]

    def judge(self, value: float, *, greater_is_better: bool) -> None:
        """Notes whether this step's value of the metric is the best so far; one that is no number never is."""
        before = self.best_value
        better = before is None or (value > before if greater_is_better else value < before)
        if better and math.isfinite(value):
            self.best_step, self.best_value, self.stale = self.step, value, 0
        else:
            self.stale += 1


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
    objective: Objective
    world: World = field(default_factory=World)
    watch: Watch | None = None
    keeping: Callable[[], AbstractContextManager[Any]] = nullcontext  # where saved tensors stay

    @property
    def step_size(self) -> int:
        """Examples of one optimiser step, over all processes."""
        return self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps

    def parts(self, items: list[Item]) -> list[list[Item]]:
        """The forward passes of a step, near lengths together.

        At most `per_device_train_batch_size` examples each, or, with `pass_tokens`, as many as fit so many tokens.
        """
        items = sorted(items, key=lambda item: len(item.input_ids))
        if self.config.pass_tokens:
            return first_fit(items, self.config.pass_tokens)
        size = self.config.per_device_train_batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def mine(self, items: list[Item]) -> tuple[list[list[Item]], int]:
        """This process's passes of a step, and how many empty ones it adds so that all make the same number."""
        items = sorted(items, key=lambda item: len(item.input_ids))
        most = max(len(self.parts(items[rank :: self.world.size])) for rank in range(self.world.size))
        own = self.parts(self.world.share(items))
        return own, most - len(own)

    def layout(self, part: list[Item]) -> Layout:
        device = self.model.device
        return pack(part, device) if self.packing else pad(part, self.pad_id, device)

    def passes(self, items: list[Item]) -> Iterator[tuple[list[Item], Layout]]:
        """The parts with their layouts, each made when it is asked for."""
        for part in self.parts(items):
            yield part, self.layout(part)
