"""A few real steps in a process of their own, and what they took: `python -m tuneloop.train.probe JOB.json`.

Prints one JSON object: peak and start of the process's memory in bytes, and the seconds of the fastest step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import PartialError, TuneloopError
from tuneloop.store import read_json, write_json

STEPS = 3
LOOK_AT_NOTHING = {"eval_samples": 0, "metric_for_best_model": "valid_loss"}


def probe(config: TrainConfig, model: ModelConfig, data: Path, examples: int, *, steps: int = STEPS) -> dict[str, Any]:
    """Runs steps of the `examples` longest examples in a child. Raises PartialError 422 when it dies."""
    with tempfile.TemporaryDirectory(prefix="tuneloop-probe-") as name:
        job = {"train": config.model_dump(), "model": model.model_dump(), "data": str(data.resolve())}
        write_json(Path(name) / "job.json", {**job, "examples": examples, "steps": steps})
        done = subprocess.run(
            [sys.executable, "-m", "tuneloop.train.probe", name], capture_output=True, text=True, check=False
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        why = next((line for line in lines if line.startswith("TL-")), lines[-1])
        killed = " (killed: out of memory?)" if done.returncode in (-9, 137) else ""
        raise PartialError(
            422,
            f"the probe of {examples} examples at once died{killed}: {why}",
            where="plan",
            cure="the counted part of the plan stands; lower train.per_device_train_batch_size",
        )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main(folder: Path) -> None:
    import torch

    from tuneloop import console
    from tuneloop.train.distributed import World
    from tuneloop.train.flops import cost_of
    from tuneloop.train.memory import peak_bytes, resident_bytes
    from tuneloop.train.optim import Optimizer
    from tuneloop.train.run import prepare
    from tuneloop.train.state import State
    from tuneloop.train.step import take_step

    job = read_json(folder / "job.json")
    console.set_mode(quiet=True)
    config = TrainConfig(**{**job["train"], "devices": 1, "eval_tasks": [], "auto": [], **LOOK_AT_NOTHING})
    base = resident_bytes()
    trainer, _ = prepare(config, ModelConfig(**job["model"]), Path(job["data"]), folder, World())
    items = sorted(trainer.train, key=lambda item: -len(item.input_ids))[: job["examples"]]
    optimizer, seconds = Optimizer(trainer.model, config, trainer.rate), []
    device = trainer.model.device
    for _ in range(job["steps"]):
        started = time.perf_counter()
        take_step(trainer, optimizer, State(), items, job["steps"] + 1)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    print(
        json.dumps(
            {
                "peak_bytes": peak_bytes(device),
                "base_bytes": 0 if device.type == "cuda" else base,
                "seconds": min(seconds[1:] or seconds),
                "flops": cost_of(trainer.model).step(items),
                "tokens": sum(len(item.input_ids) for item in items),
                "threads": torch.get_num_threads(),
                "cpus": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except TuneloopError as failed:
        print(failed, file=sys.stderr)
        sys.exit(failed.exit_code)
