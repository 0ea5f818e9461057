"""Compiling the decoder's layers where the run is long enough to win the time back."""

from __future__ import annotations

import torch

from tuneloop.console import say, warn
from tuneloop.train import fuse
from tuneloop.train.batch import Item
from tuneloop.train.distributed import layers_of
from tuneloop.train.objectives.tokens import head
from tuneloop.train.state import Trainer


def work(t: Trainer, plan: list[list[int]]) -> float:
    """Floating-point operations of the planned run: six a weight of the layers and token."""
    weights = int(sum(p.numel() for layer in layers_of(t.model) for p in layer.parameters()))
    lengths = [len(item.input_ids) for item in t.train]
    return 6.0 * weights * sum(lengths[i] for step in plan for i in step)


def quicken(t: Trainer, plan: list[list[int]]) -> None:
    """Compiles the layers, and the small functions between them, if asked to or where it pays.

    The code made depends on the first examples that it sees, so these are always those of the first step: a resumed run
    gets the same code and goes on to the same bits.
    """
    asked, device = t.config.torch_compile, t.model.device.type
    pays = device == "cpu" and work(t, plan) > fuse.WORTH
    fuse.use(False)
    if not (pays if asked is None else asked) or t.world.sharded:
        return
    why_not = fuse.compiler(device)
    if why_not:
        warn(f"not compiled, which is slower: {why_not}")
        return
    say("the layers are compiled: " + ("asked for" if asked else "the run is long enough to win the minute back"))
    head(t.model)  # looked for without gradients, which would be code of its own
    fuse.use(True)
    torch._dynamo.config.recompile_limit = 64
    for layer in layers_of(t.model):
        layer.compile(dynamic=True)
    if plan:
        _warm(t, [t.train[i] for i in plan[0]])


def _warm(t: Trainer, items: list[Item]) -> None:
    """Forward and backward on the first step's examples; nothing is kept of it, random numbers included."""
    with torch.random.fork_rng(devices=[]):
        t.model.train()
        if t.objective.note:
            t.objective.note(t.model, items, t.passes)
        for part, layout in t.passes(items):
            with t.keeping():
                t.objective.outcome(t.model, layout, part).total.backward()
    for weight in t.model.parameters():
        weight.grad = None
