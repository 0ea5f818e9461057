"""What a run will need before it starts: memory by part, the largest micro-batch that fits, and the time it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.console import say
from tuneloop.models import context_length, load_shape, load_tokenizer, pick_device, pick_dtype
from tuneloop.prompts import apply_template
from tuneloop.records import read_examples
from tuneloop.store import require_run
from tuneloop.train import memory
from tuneloop.train.batch import Item
from tuneloop.train.flops import shape_cost
from tuneloop.train.items import load_items, steps_of
from tuneloop.train.probe import probe


@dataclass
class Setting:
    """What a plan is about, without a weight in memory."""

    config: TrainConfig
    model: ModelConfig
    data: Path
    shape: Any
    items: list[Item]
    device: str
    dtype: torch.dtype

    def longest(self, examples: int) -> list[Item]:
        """The worst pass of that many examples."""
        return sorted(self.items, key=lambda item: -len(item.input_ids))[:examples]

    def counted(self, examples: int, passes: int | None = None) -> dict[str, int]:
        """Bytes by kind at the peak of a pass of so many examples, gradients of earlier passes of the step included."""
        step = self.config.per_device_train_batch_size * self.config.gradient_accumulation_steps
        passes = passes or (2 if step > examples else 1)
        config = self.config.model_copy(update={"per_device_train_batch_size": examples, "devices": 1})
        items = self.longest(examples) * passes
        return memory.count(self.shape, config, self.dtype, items, packing=config.packing)


def plan(config: TrainConfig, model: ModelConfig, data: Path, *, confirm: bool = False) -> dict[str, Any]:
    """Counts, probes once at one example a pass, and recommends; with `confirm` the recommendation is run too.

    The probe corrects the count (see `memory.corrected`).
    """
    found = setting(config, model, data)
    base = memory.resident_bytes() if found.device != "cuda" else 0
    asked = config.per_device_train_batch_size
    step = asked * config.gradient_accumulation_steps
    counted = {asked: found.counted(asked)}
    alone = memory.peak(counted[asked], base, found.device)
    small = found.counted(1, passes=1)
    say(f"counted: {alone / 2**30:.2f} GiB at {asked} examples a pass; now one probe at 1")
    probed = probe(config.model_copy(update={"per_device_train_batch_size": 1}), model, data, 1)
    free = memory.free_bytes(found.device)

    def expect(size: int) -> int:
        if size not in counted:
            counted[size] = found.counted(size)
        one, many = (memory.peak(c, int(probed["base_bytes"]), found.device) for c in (small, counted[size]))
        return memory.corrected(many, one, int(probed["peak_bytes"]))

    best = memory.recommend(step, expect, int(memory.ROOM * free))
    planned = steps_of(config, found.items, step)
    steps = len(planned)
    result: dict[str, Any] = {
        "device": found.device,
        "dtype": str(found.dtype).removeprefix("torch."),
        "counted": {**{kind: counted[asked][kind] for kind in memory.KINDS}, "process": base},
        "counted_peak_bytes": alone,
        "probe": probed,
        "free_bytes": free,
        "asked": {"per_device_train_batch_size": asked, "peak_bytes": expect(asked)},
        "recommended": {
            "per_device_train_batch_size": best,
            "gradient_accumulation_steps": step // best,
            "peak_bytes": expect(best),
        },
        "steps": steps,
    }
    timed = probed
    if confirm:
        chosen = config.model_copy(update={"per_device_train_batch_size": best})
        timed = result["confirmed"] = probe(chosen, model, data, best)
    result["seconds"] = _seconds(found, config, timed, planned)
    return result


def _seconds(found: Setting, config: TrainConfig, timed: dict[str, Any], planned: list[list[int]]) -> float:
    """Arithmetic of all steps at the rate of the probe, and of the valid split (a third of it: no backward pass)."""
    cost = shape_cost(found.shape, config.method)
    each = cost.step(found.items) / max(1, len(found.items))
    valid = sum(1 for _ in read_examples(found.data, "valid"))
    evaluations = (
        math.ceil(len(planned) / config.eval_steps) if config.eval_steps else math.ceil(config.num_train_epochs)
    )
    work = each * (sum(len(step) for step in planned) + evaluations * valid / 3)
    return float(work * timed["seconds"] / timed["flops"])


def setting(config: TrainConfig, model: ModelConfig, data: Path) -> Setting:
    require_run(data, "data")
    shape = load_shape(model.name, model.revision)
    tokenizer = load_tokenizer(model.name, revision=model.revision)
    if model.template or any(e.messages for e in read_examples(data, "train")):
        apply_template(tokenizer, model.template)
    limit = min(config.max_length or 10**9, context_length(_Shape(shape), tokenizer))
    items = load_items(data, "train", tokenizer, limit, None, config.objective)
    device = torch.device(pick_device(model.device if config.device == "auto" else config.device)).type
    dtype = pick_dtype(model.dtype if config.dtype == "auto" else config.dtype, device)
    return Setting(config, model, data, shape, items, device, dtype)


@dataclass
class _Shape:
    """What `context_length` reads of a model."""

    config: Any
