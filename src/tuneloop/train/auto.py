"""`auto` values: measured once at the start of a run, said with their reason, and kept in `auto.json` for a resume."""

from __future__ import annotations

from typing import Any

from tuneloop.console import say
from tuneloop.errors import UsageError
from tuneloop.store import read_json, write_json
from tuneloop.train import finder, memory
from tuneloop.train.memory import ROOM, recommend
from tuneloop.train.state import Trainer


def settle(t: Trainer) -> None:
    """Fills in the values that the config asks to measure. Raises UsageError 250 with shards."""
    if not t.config.auto:
        return
    if t.world.sharded:
        raise UsageError(
            250,
            f"{', '.join(t.config.auto)} cannot be measured on shards",
            where="train.parallel=fsdp",
            cure="measure with --devices 1 on a smaller model of the family, or give the value",
        )
    path = t.out / "auto.json"
    known: dict[str, Any] = read_json(path) if path.is_file() else {}
    known = t.world.tell(known)
    for key in ("per_device_train_batch_size", "gradient_accumulation_steps", "learning_rate"):
        if key in t.config.auto:
            known[key] = known.get(key) or t.world.tell(_measure(key, t) if t.world.first else {})
            _apply(t, key, known[key]["value"])
            say(f"{key} {known[key]['value']:g}: {known[key]['reason']}")
    if t.world.first:
        write_json(path, known)


def _measure(key: str, t: Trainer) -> dict[str, Any]:
    world, t.world = t.world, type(t.world)()  # the first process measures alone
    try:
        if key == "learning_rate":
            found = finder.learning_rate(t)
            return {"value": found.value, "reason": found.reason, "curve": found.curve}
        if key == "gradient_accumulation_steps":
            found = finder.noise_scale(t)
            micro = t.config.per_device_train_batch_size
            return {"value": finder.accumulation(found, micro, len(t.train)), "reason": found.reason}
        return _micro_batch(t)
    finally:
        t.world = world


def _micro_batch(t: Trainer) -> dict[str, Any]:
    """The largest divisor of the step whose counted memory fits; the examples of a step stay the same."""
    step, device = t.step_size, t.model.device.type
    free = memory.free_bytes(device)
    longest = sorted(t.train, key=lambda item: -len(item.input_ids))

    def expect(size: int) -> int:
        config = t.config.model_copy(update={"per_device_train_batch_size": size})
        counted = memory.count(t.model.config, config, t.model.dtype, longest[:size], packing=t.packing)
        return memory.peak(counted, 0, device)

    best = recommend(step, expect, int(ROOM * free))
    reason = f"the most of a step of {step} that fits: {expect(best) / 2**30:.2f} of {free / 2**30:.2f} GiB free"
    return {"value": best, "reason": reason, "accumulation": step // best}


def _apply(t: Trainer, key: str, value: float) -> None:
    if key == "learning_rate":
        t.rate = float(value)
        return
    changed: dict[str, int] = {key: int(value)}
    if key == "per_device_train_batch_size" and "gradient_accumulation_steps" not in t.config.auto:
        changed["gradient_accumulation_steps"] = max(1, t.step_size // int(value))
    t.config = t.config.model_copy(update=changed)
