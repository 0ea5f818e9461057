"""Where a number that is none came from: a weight, the first layer that put it out, or the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tuneloop.train.batch import Item
from tuneloop.train.state import Trainer


def blame(t: Trainer, items: list[Item]) -> tuple[str, list[str]]:
    """The place, and the ids of the examples in the first pass that shows it (all of them where none does).

    The step was not taken, so its passes are run once more, watched. With several processes only weights are looked
    at: the others would wait.
    """
    ids = [item.id for item in items]
    for name, weight in t.model.named_parameters():
        if not bool(torch.isfinite(weight).all()):
            return f"weight {name}", ids
    if t.world.size > 1:
        return "a layer or the backward pass", ids
    for part, layout in t.passes(items):
        place = _first_output(t, lambda part=part, layout=layout: t.objective.outcome(t.model, layout, part))  # type: ignore[misc]
        if place:
            return place, [item.id for item in part]
    return "the backward pass", ids


@torch.no_grad()
def _first_output(t: Trainer, run: Callable[[], Any]) -> str:
    """The first module to finish with an output that is not finite; leaves finish before what holds them."""
    found: list[str] = []

    def look(name: str) -> Callable[[Any, Any, Any], None]:
        def hook(_: Any, __: Any, out: Any) -> None:
            tensor = out[0] if isinstance(out, tuple) else out
            if not found and isinstance(tensor, torch.Tensor) and not bool(torch.isfinite(tensor).all()):
                found.append(name)

        return hook

    hooks = [module.register_forward_hook(look(name)) for name, module in t.model.named_modules() if name]
    try:
        total = run().total
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return f"layer {found[0]}"
    return "" if bool(torch.isfinite(total)) else "the loss"
