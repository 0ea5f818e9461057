"""Validation loss after the same training by us and by TRL: same model, rows, examples per step, order and rate.

    python benchmarks/train_quality.py --work DIR [--seconds 200]    what DIR lacks, as much as fits; again: more
    python benchmarks/train_quality.py --quick                       one set, one seed, few steps

A real small model (stories260K, 512 tokens), all weights, 60 steps of 16 examples of Banking77 and lamini_docs at a
constant rate of 1e-3, three seeds, in float32 and in bfloat16 (ours: bfloat16 weights with float32 masters, saved in
bfloat16; TRL: autocast over float32 weights). Ours is the `train` stage as a user runs it; TRL gets the same token ids
in the order of its steps. One function scores both tunes in float32 on the same validation rows.

The last line says for each set and precision the mean of the paired difference (ours - TRL's) of the rows' losses over
three seeds, its 95 % interval over rows and over seeds, and whether both lie below +1 % of TRL's loss.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import itertools
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SHARED = Path(os.environ.get("TUNELOOP_SHARED", HERE.parent.parent / "shared"))
SETS = {"banking77": "PolyAI/banking77", "lamini_docs": "lamini/lamini_docs"}
PRECISIONS = ("float32", "bfloat16")
BATCH, RATE, SEEDS, STEPS, VALID, LENGTH = 16, 1e-3, (0, 1, 2), 60, 200, 512
BASE = str(SHARED / "models" / "stories260K")


def prepared(name: str, work: Path) -> Path:
    """The data folder of a set: what fits the model, in full steps only (TRL fills a short one with other rows)."""
    from tuneloop.config import DataConfig
    from tuneloop.data import prepare
    from tuneloop.records import read_examples, write_examples
    from tuneloop.store import open_run

    os.environ["TUNELOOP_DATA"] = str(SHARED / "data")
    whole, out = work / f"rows-{name}", work / f"data-{name}"
    if (out / "manifest.json").exists():
        return out
    prepare(DataConfig(source=[SETS[name]]), whole)
    with open_run(out, stage="data", config={}, inputs={"rows": whole}, overwrite=True) as run:
        for split in ("train", "valid"):
            fits = [item.id for item in items_of(whole, split)[0]]
            kept = set(fits[: len(fits) // BATCH * BATCH] if split == "train" else fits[:VALID])
            write_examples(out, split, [e for e in read_examples(whole, split) if e.id in kept])
        run.finish()
    return out


def items_of(data: Path, split: str) -> tuple[list[Any], Any]:
    """Items of a split as the stage reads them, and the tokenizer."""
    from tuneloop.models import load_tokenizer
    from tuneloop.prompts import apply_template
    from tuneloop.train.items import load_items

    tokenizer = load_tokenizer(BASE)
    apply_template(tokenizer, "plain")
    return load_items(data, split, tokenizer, LENGTH, None), tokenizer


def loaded(folder: str) -> Any:
    from tuneloop.models import load_model

    return load_model(folder, dtype="float32", device="cpu")


def ours(data: Path, steps: int, seed: int, precision: str) -> Any:
    from tuneloop.config import ModelConfig, TrainConfig
    from tuneloop.train import train

    config = TrainConfig.model_validate(
        {
            "method": "full",
            "learning_rate": RATE,
            "lr_scheduler_type": "constant",
            "warmup_ratio": 0.0,
            "per_device_train_batch_size": BATCH,
            "max_steps": steps,
            "max_length": LENGTH,
            "eval_steps": steps,
            "save_steps": steps,
            "load_best_model_at_end": False,
            "dtype": precision,
            "seed": seed,
        }
    )
    out = Path(tempfile.mkdtemp())
    train(config, ModelConfig(name=BASE, template="plain"), data, out / "tune")
    return loaded(str(out / "tune"))


def trl(data: Path, steps: int, seed: int, precision: str) -> Any:
    import torch
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    from tuneloop.train.items import plan_steps

    items, tokenizer = items_of(data, "train")
    plan = plan_steps(len(items), BATCH, 1.0, steps, seed)
    rows = [items[i] for step in plan for i in step]
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=BATCH,
        max_steps=steps,
        learning_rate=RATE,
        lr_scheduler_type="constant",
        warmup_steps=0,
        weight_decay=0.0,
        logging_steps=1000,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        train_sampling_strategy="sequential",
        bf16=precision == "bfloat16",
        gradient_checkpointing=False,
        completion_only_loss=True,
        max_length=LENGTH,
    )
    torch.manual_seed(seed)
    rows = [{"input_ids": r.input_ids, "completion_mask": [int(x) for x in r.trained]} for r in rows]
    made = SFTTrainer(
        loaded(BASE), arguments, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )  # fmt: skip
    made.train()
    return made.model.eval()


def row_losses(network: Any, items: list[Any]) -> list[float]:
    """Mean loss of each row, float32, padded, plain attention."""
    import torch

    from tuneloop.train.batch import pad
    from tuneloop.train.objectives.sft import sft

    network.set_attn_implementation("sdpa")
    found: list[float] = []
    with torch.no_grad():
        for i in range(0, len(items), 20):
            part = items[i : i + 20]
            found += sft().outcome(network, pad(part, 0, network.device), part).rows.tolist()
    return found


def summary(name: str, precision: str, units: dict[str, Any], seeds: tuple[int, ...]) -> dict[str, Any]:
    import numpy as np
    from scipy import stats

    a, b = (
        np.array([units[f"{name} {precision} {seed} {side}"]["rows"] for seed in seeds]) for side in ("ours", "trl")
    )
    by_row, by_seed, theirs = (a - b).mean(0), (a - b).mean(1), float(b.mean())

    def interval(values: Any) -> list[float]:
        if len(values) < 2 or np.ptp(values) == 0:
            return [float(values.mean())] * 2
        return [float(x) for x in stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))]

    rows, runs = interval(by_row), interval(by_seed)
    return {
        "set": name,
        "precision": precision,
        "valid_rows": len(by_row),
        "base_loss": float(np.mean(units[f"{name} base"]["rows"])),
        "our_loss": float(a.mean()),
        "trl_loss": theirs,
        "difference": float((a - b).mean()),
        "interval_over_rows": rows,
        "interval_over_seeds": runs,
        "bound": 0.01 * theirs,
        "below_bound": max(rows[1], runs[1]) < 0.01 * theirs,
    }


def unit(key: str, work: Path, steps: int) -> dict[str, Any]:
    name, *how = key.split()
    data = prepared(name, work)
    valid = items_of(data, "valid")[0]
    started = time.monotonic()
    if how == ["base"]:
        network = loaded(BASE)
    else:
        precision, seed, side = how
        network = {"ours": ours, "trl": trl}[side](data, steps, int(seed), precision)
    rows = row_losses(network, valid)
    return {"rows": rows, "seconds": round(time.monotonic() - started, 1)}


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--seconds", type=float, default=1e9, help="no new training after so long")
    p.add_argument("--work", type=Path, help="what is done is kept here")
    a = p.parse_args()
    work = a.work or Path(tempfile.mkdtemp())
    sets, precisions, seeds, steps = tuple(SETS), PRECISIONS, SEEDS, STEPS
    if a.quick:
        sets, precisions, seeds, steps = ("banking77",), ("float32",), (0,), 10
    work.mkdir(parents=True, exist_ok=True)
    path = work / f"units-{steps}.json"
    units: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    keys = [f"{name} base" for name in sets]
    for p_, seed, name, side in itertools.product(precisions, seeds, sets, ("ours", "trl")):
        keys.append(f"{name} {p_} {seed} {side}")
    started = time.monotonic()
    for key in keys:
        if key in units or time.monotonic() - started > a.seconds:
            continue
        units[key] = unit(key, work, steps)
        path.write_text(json.dumps(units))
        print(f"{key}: {sum(units[key]['rows']) / len(units[key]['rows']):.5f}", file=sys.stderr, flush=True)
    missing = [key for key in keys if key not in units]
    whole = [(n, p_) for n in sets for p_ in precisions if not any(key.startswith(f"{n} {p_}") for key in missing)]
    found = [summary(name, p_, units, seeds) for name, p_ in whole]
    result = {
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "steps": steps,
        "examples_a_step": BATCH,
        "seeds": len(seeds),
        "missing": missing,
        "found": found,
    }
    if not a.quick and found:
        into = HERE / "results" / f"{datetime.date.today()}-train-quality.json"
        into.write_text(json.dumps({**result, "command": "python benchmarks/train_quality.py"}, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
