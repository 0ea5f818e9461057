"""How well `tuneloop plan` foretells the peak of memory: counted alone, and counted with one probe at micro-batch 1.

    python benchmarks/plan_memory.py --set fit            the configurations that the allocator's waste was fitted on
    python benchmarks/plan_memory.py --set valid          five others, which it was not fitted on
    python benchmarks/plan_memory.py --only NAME          one of them; parts add up with --into FILE

The measured peak is the resident memory (CUDA: the allocator's) of a process that loads the model and takes three steps
on the longest rows. Models are random, of Llama's and Qwen2's shapes with the vocabulary of smollm-135m; rows come from
Alpaca and GSM8K in the folder `TUNELOOP_SHARED` (default: ../shared). Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import datetime
import gzip
import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Any

SHARED = Path(os.environ.get("TUNELOOP_SHARED", Path(__file__).resolve().parent.parent.parent / "shared"))
LLAMA = {
    "15m": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6},
    "46m": {"hidden_size": 448, "intermediate_size": 1200, "num_hidden_layers": 10, "num_attention_heads": 7},
    "61m": {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 12, "num_attention_heads": 8,
            "num_key_value_heads": 4},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
             "num_key_value_heads": 3},
}  # fmt: skip
# Name -> kind of model, shape, settings; the micro-batch is what is foretold.
FIT: dict[str, tuple[str, str, dict[str, Any]]] = {
    "46m full fp32 x8, layers computed again": (
        "llama", "46m", {"per_device_train_batch_size": 8, "gradient_checkpointing": "full"},
    ),
    "61m qwen2 lora bf16 x16": (
        "qwen2", "61m", {"per_device_train_batch_size": 16, "dtype": "bfloat16", "method": "lora"},
    ),
    "61m full fp32 x4 of 16": ("llama", "61m", {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}),
    "15m qwen2 full fp32 x20": ("qwen2", "15m", {"per_device_train_batch_size": 20}),
    "46m full fp32 x6 of 12": ("llama", "46m", {"per_device_train_batch_size": 6, "gradient_accumulation_steps": 2}),
    "15m lora fp32 x24": ("llama", "15m", {"per_device_train_batch_size": 24, "method": "lora"}),
}  # fmt: skip
VALID: dict[str, tuple[str, str, dict[str, Any]]] = {
    "15m lora fp32 x10 of 20": (
        "llama", "15m", {"per_device_train_batch_size": 10, "gradient_accumulation_steps": 2, "method": "lora"},
    ),
    "46m qwen2 full fp32 x4, every second layer again": (
        "qwen2", "46m", {"per_device_train_batch_size": 4, "gradient_checkpointing": "selective"},
    ),
    "61m qwen2 full fp32 x6, layers computed again": (
        "qwen2", "61m", {"per_device_train_batch_size": 6, "gradient_checkpointing": "full"},
    ),
    "135m qwen2 full fp32 x2": ("qwen2", "135m", {"per_device_train_batch_size": 2}),
    "135m lora fp32 x4": ("llama", "135m", {"per_device_train_batch_size": 4, "method": "lora"}),
}  # fmt: skip


def model(folder: Path, kind: str, shape: str) -> Path:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, Qwen2Config

    made = {"llama": LlamaConfig, "qwen2": Qwen2Config}[kind]
    tokenizer = AutoTokenizer.from_pretrained(SHARED / "tokenizers" / "smollm-135m")
    sizes = {"num_key_value_heads": LLAMA[shape]["num_attention_heads"], **LLAMA[shape]}
    config = made(vocab_size=49152, max_position_embeddings=2048, tie_word_embeddings=True, **sizes)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def data(folder: Path, count: int = 200) -> Path:
    from tuneloop.records import Example, write_examples
    from tuneloop.store import open_run

    rows: list[tuple[str, str]] = []
    for name, file, ask, answer in (
        ("alpaca", "alpaca_subset", "instruction", "output"), ("gsm8k", "train", "question", "answer"),
    ):  # fmt: skip
        with gzip.open(SHARED / "data" / name / f"{file}.jsonl.gz", "rt", encoding="utf-8") as lines:
            rows += [(row[ask], row[answer]) for row, _ in zip(map(json.loads, lines), range(count), strict=False)]
    examples = [
        Example(id=f"r{i}", messages=[{"role": "user", "content": q}, {"role": "assistant", "content": a}])
        for i, (q, a) in enumerate(rows) if a.strip()
    ]  # fmt: skip
    with open_run(folder, stage="data", config={}, inputs={}) as run:
        write_examples(folder, "train", examples)
        run.finish()
    return folder


def measure(name: str, kind: str, shape: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Peaks in MiB: counted alone, with the probe, measured; and the errors as shares of the measured one."""
    from tuneloop.config import ModelConfig, TrainConfig
    from tuneloop.train import memory
    from tuneloop.train.plan import setting
    from tuneloop.train.probe import probe

    where = folder / f"{kind}-{shape}"
    if not where.exists():
        model(where, kind, shape)
    config = TrainConfig.model_validate({"method": "full", "learning_rate": 1e-4, **settings})
    asked = ModelConfig(name=str(where), template="chatml")
    found, size = setting(config, asked, folder / "data"), config.per_device_train_batch_size
    step = size * config.gradient_accumulation_steps
    counted = {1: found.counted(1, passes=1), size: found.counted(size)}
    first = probe(config.model_copy(update={"per_device_train_batch_size": 1}), asked, folder / "data", 1)
    base = first["base_bytes"]  # the process before it loads anything: the same for every model
    alone = memory.peak(counted[size], base, found.device)
    told = memory.corrected(alone, memory.peak(counted[1], base, found.device), first["peak_bytes"])
    measured = probe(config, asked, folder / "data", step)["peak_bytes"]
    live, moves = (
        sum(counted[size][kind] for kind in memory.KINDS),
        counted[size]["coming"] + counted[size]["gradients"],
    )
    stays = sum(counted[size][kind] for kind in ("weights", "adapters", "optimizer"))
    return {
        "name": name, "measured_mib": measured >> 20, "counted_mib": alone >> 20, "with_probe_mib": told >> 20,
        "counted_error": round(alone / measured - 1, 3), "with_probe_error": round(told / measured - 1, 3),
        "live_mib": live >> 20, "moves_mib": moves >> 20, "base_mib": base >> 20,
        "waste": round((measured - base - memory.LIBRARIES - stays) / moves, 3),
        "probe_mib": first["peak_bytes"] >> 20,
        "parts_mib": {kind: counted[size][kind] >> 20 for kind in memory.KINDS},
    }  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--set", choices=["fit", "valid"], default="valid")
    arguments.add_argument("--only")
    arguments.add_argument("--quick", action="store_true", help="the first of the set")
    arguments.add_argument("--into", type=Path)
    chosen = arguments.parse_args()
    every = FIT if chosen.set == "fit" else VALID
    names = [chosen.only] if chosen.only else list(every)[: 1 if chosen.quick else None]
    kept = chosen.into is not None and chosen.into.exists()
    rows: list[dict[str, Any]] = json.loads(chosen.into.read_text())["rows"] if kept else []
    with tempfile.TemporaryDirectory() as top:
        data(Path(top) / "data")
        for name in names:
            if any(row["name"] == name for row in rows):
                continue
            rows.append(measure(name, *every[name], Path(top)))
            print(json.dumps(rows[-1]), flush=True)
            if chosen.into:
                chosen.into.write_text(json.dumps({"rows": rows}))
    print(
        json.dumps(
            {
                "date": datetime.date.today().isoformat(),
                "machine": f"{platform.machine()}, {os.cpu_count()} cores",
                "set": chosen.set,
                "worst_counted_error": max(abs(row["counted_error"]) for row in rows),
                "worst_with_probe_error": max(abs(row["with_probe_error"]) for row in rows),
                "rows": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
