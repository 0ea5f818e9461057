"""Random kill -9 while training: every killed run is resumed and must end in the bytes of the straight one.

    python benchmarks/kills.py --kills 50                     one process
    python benchmarks/kills.py --kills 10 --seed 3            a part, with other moments

A tiny random model trains with dropout, accumulation, evaluations and checkpoints every third step, so a kill falls
into steps, evaluations, half-written checkpoints and the final save alike: the moment is drawn uniformly over the
straight run's duration. Processes are forked from one that has imported everything. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.recipe.tiny import tiny_data, tiny_examples, tiny_folder  # noqa: E402

import tuneloop.train.run as stage  # noqa: E402
from tuneloop import console  # noqa: E402
from tuneloop.config import ModelConfig, TrainConfig  # noqa: E402
from tuneloop.store import read_jsonl  # noqa: E402

CLOCKS = ("tokens_per_s", "memory_bytes", "matrix_rate_fraction")


def config(method: str) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "method": method,
            "learning_rate": 1e-2,
            "per_device_train_batch_size": 4,
            "gradient_accumulation_steps": 2,
            "num_train_epochs": 8,
            "save_steps": 3,
            "eval_steps": 4,
            "lora_dropout": 0.1,
            "eval_samples": 1,
        }
    )


def start(top: Path, method: str, out: str) -> int:
    """The pid of a child that trains into `out`."""
    pid = os.fork()
    if pid:
        return pid
    try:
        console.set_mode(quiet=True)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        stage.train(config(method), ModelConfig(name=str(top / "base")), top / "data", top / out)
    except BaseException:
        os._exit(1)
    os._exit(0)


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def result(out: Path, method: str) -> dict[str, bytes]:
    """What must not differ: weights, losses by row, the log without its clocks, the samples."""
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in read_jsonl(out / "log.jsonl")]
    files = {name: (out / name).read_bytes() for name in (name, "row_loss.parquet", "samples.jsonl")}
    return files | {"log": json.dumps(rows).encode()}


def one(top: Path, method: str, straight: dict[str, bytes], moment: float, out: str) -> tuple[bool, str]:
    """Whether a run killed after `moment` seconds and resumed is the straight one; where the kill fell."""
    pid = start(top, method, out)
    time.sleep(moment)
    done = os.waitpid(pid, os.WNOHANG)[0]
    if not done:
        os.kill(pid, signal.SIGKILL)
        ended(pid)
    steps = len(read_jsonl(top / out / "log.jsonl")) if (top / out / "log.jsonl").is_file() else 0
    half = any((top / out).glob(".checkpoint-*.tmp"))
    place = "in a checkpoint" if half else "in steps" if steps else "before the first step"
    if done or (top / out / "manifest.json").is_file():
        place = "after the end"
    code = ended(start(top, method, out))
    return code == 0 and result(top / out, method) == straight, place


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=50)
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--quick", action="store_true", help="ten kills")
    chosen = arguments.parse_args()
    import torch

    torch.set_num_threads(1)
    rng, places, differ = random.Random(chosen.seed), Counter[str](), 0
    kills = 10 if chosen.quick else chosen.kills
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        tiny_folder(top / "base")
        tiny_data(top / "data", tiny_examples(48))
        straight, seconds = {}, {}
        for method in ("full", "lora"):
            started = time.monotonic()
            assert ended(start(top, method, f"straight-{method}")) == 0
            seconds[method] = time.monotonic() - started
            straight[method] = result(top / f"straight-{method}", method)
        number = 0
        while sum(places.values()) < kills:
            method = ("full", "lora")[number % 2]
            same, place = one(top, method, straight[method], rng.uniform(0, seconds[method]), f"run-{number}")
            number += 1
            if place == "after the end":
                continue  # it was done before the kill came: not counted
            places[place] += 1
            differ += not same
            print(f"kill {sum(places.values())}: {method}, {place}: {'same' if same else 'DIFFERENT'}", flush=True)
    print(
        json.dumps(
            {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "kills": sum(places.values()),
                "places": dict(places),
                "different": differ,
            }
        )
    )
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
