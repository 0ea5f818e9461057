"""Log-probabilities under the model as it was before the first step, taken once, so no second model stays in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from tuneloop.console import progress
from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.tokens import text_log_probs

Passes = Callable[[list[Item]], Iterator[tuple[list[Item], Layout]]]


@torch.no_grad()
def text_sums(model: Any, items: list[Item], passes: Passes, *, show: str = "") -> dict[str, list[float]]:
    """For each item, by id, the summed log-probability of the trained tokens of each of its texts."""
    was_training = model.training
    model.eval()
    found: dict[str, list[float]] = {}
    with progress(show or "reference", len(items)) as bar:
        for part, layout in passes(items):
            sums = text_log_probs(model, layout).tolist()
            each = len(sums) // len(part)
            for i, item in enumerate(part):
                found[item.id] = sums[i * each : (i + 1) * each]
            bar.advance(len(part))
    model.train(was_training)
    return found
