"""What a run is made of, and what of it a checkpoint keeps."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.config import TrainConfig
from tuneloop.train.batch import Item, Layout, pack, pad
from tuneloop.train.objectives import Objective


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
    objective: Objective

    def parts(self, items: list[Item]) -> list[list[Item]]:
        """The forward passes of a step: at most `per_device_train_batch_size` examples each, near lengths together."""
        items = sorted(items, key=lambda item: len(item.input_ids))
        size = self.config.per_device_train_batch_size
        return [items[start : start + size] for start in range(0, len(items), size)]

    def layout(self, part: list[Item]) -> Layout:
        device = self.model.device
        return pack(part, device) if self.packing else pad(part, self.pad_id, device)
