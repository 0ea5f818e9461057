"""How long `tuneloop plan` says a run takes, beside the run itself.

    python benchmarks/plan_time.py [--quick]

Two models of random weights (15M all weights, 61M LoRA; the vocabulary of smollm-135m) on rows of Alpaca and GSM8K:
`plan` counts and probes one example a pass, `plan --confirm` also times the micro-batch; then `train` runs to its end.
`measured` is the time of its steps by its own log, `wall` from start to finish. Wants the machine alone. Prints one
JSON object last.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from plan_memory import data, model

CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "15m full x16": ("llama", "15m", {"per_device_train_batch_size": 16, "method": "full"}),
    "61m qwen2 lora x8": ("qwen2", "61m", {"per_device_train_batch_size": 8, "method": "lora"}),
}


def measure(name: str, kind: str, shape: str, settings: dict[str, Any], steps: int, top: Path) -> dict[str, Any]:
    from tuneloop.config import ModelConfig, TrainConfig
    from tuneloop.store import read_jsonl
    from tuneloop.train import train
    from tuneloop.train.plan import plan

    asked = ModelConfig(name=str(model(top / f"{kind}-{shape}", kind, shape)), template="chatml")
    fixed = {"learning_rate": 1e-4, "max_steps": steps, "save_steps": steps, "dtype": "float32"}
    config = TrainConfig.model_validate({**fixed, **settings})
    probed = plan(config, asked, top / "data")["seconds"]
    confirmed = plan(config, asked, top / "data", confirm=True)["seconds"]
    started = time.monotonic()
    out = train(config, asked, top / "data", top / f"out-{kind}-{shape}")
    wall = time.monotonic() - started
    measured = sum(row["tokens"] / row["tokens_per_s"] for row in read_jsonl(out / "log.jsonl"))
    return {
        "name": name,
        "steps": steps,
        "told_after_one_probe_s": round(probed, 1),
        "told_after_confirm_s": round(confirmed, 1),
        "measured_s": round(measured, 1),
        "wall_s": round(wall, 1),
        "probe_error": round(probed / measured - 1, 3),
        "confirm_error": round(confirmed / measured - 1, 3),
    }


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--quick", action="store_true", help="the first case, four steps")
    chosen = arguments.parse_args()
    steps = 4 if chosen.quick else 12
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        data(top / "data")
        cases = list(CASES.items())[: 1 if chosen.quick else None]
        rows = [measure(key, *case, steps, top) for key, case in cases]
    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(json.dumps({"date": datetime.date.today().isoformat(), "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()
