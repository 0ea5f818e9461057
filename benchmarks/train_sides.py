"""One side of `benchmarks/train.py`, in its own environment: SIDE JOB -> one JSON object.

Every side gets the same token ids and labels, 16 examples a step, in the same order, AdamW, constant rate, no clipping
at 1.0 left out (all clip at 1.0), bfloat16 products with float32 master weights where the side has them.
"""

from __future__ import annotations

import gzip
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SHAPES = {
    "15m": {"hidden_size": 288, "intermediate_size": 768, "num_hidden_layers": 6, "num_attention_heads": 6},
    "135m": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9},
}
KEYS = {"15m": 6, "135m": 3}
VOCABULARY = {"15m": 49152, "135m": 49152}
LORA = {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"}


def rows(shared: Path, count: int, shape: str) -> list[tuple[list[int], list[int]]]:
    """(ids, labels) of Alpaca and GSM8K rows in turn, at most 512 tokens; -100 where nothing is trained."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(shared / "tokenizers" / "smollm-135m" / "tokenizer.json"))
    tokenizer.no_padding()  # the file asks for 192 tokens a text
    tokenizer.no_truncation()
    texts = [pair for both in zip(_alpaca(shared), _gsm8k(shared), strict=False) for pair in both]
    found = []
    for prompt, answer in texts:
        asked = tokenizer.encode(prompt, add_special_tokens=False).ids
        said = [*tokenizer.encode(answer, add_special_tokens=False).ids, 0]
        ids = asked + said
        if len(ids) <= 512:
            found.append((ids, [-100] * len(asked) + ids[len(asked) :]))
        if len(found) == count:
            return found
    raise SystemExit("not enough rows")


def _read(folder: Path, stop: int = 2000) -> list[dict[str, Any]]:
    """Rows of the first readable file of a folder: JSON, JSON Lines (also .gz) or Parquet."""
    for path in sorted(folder.rglob("*")):
        name = path.name
        if name.endswith((".jsonl", ".jsonl.gz")):
            with (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
                return [json.loads(line) for _, line in zip(range(stop), file, strict=False)]
        if name.endswith((".json", ".json.gz")) and "info" not in name:
            with (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
                return json.load(file)[:stop]
        if name.endswith(".parquet"):
            import pyarrow.parquet as pq

            return pq.read_table(path).slice(0, stop).to_pylist()
    raise SystemExit(f"no rows in {folder}")


def _alpaca(shared: Path) -> list[tuple[str, str]]:
    return [
        (f"{r['instruction']}\n{r.get('input') or ''}\n".replace("\n\n", "\n"), r["output"])
        for r in _read(shared / "data" / "alpaca")
        if r.get("output")
    ]


def _gsm8k(shared: Path) -> list[tuple[str, str]]:
    return [(r["question"] + "\n", r["answer"]) for r in _read(shared / "data" / "gsm8k")]


def model(job: dict[str, Any], dtype: Any, attention: str = "sdpa") -> Any:
    """Random weights from seed 0, the same on every side."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    torch.manual_seed(0)
    shape = job["shape"]
    config = LlamaConfig(
        vocab_size=VOCABULARY[shape],
        num_key_value_heads=KEYS[shape],
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        **SHAPES[shape],
    )
    found = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    return found.to(dtype)


def flops(job: dict[str, Any], data: list[tuple[list[int], list[int]]]) -> float:
    """Operations that training on these rows needs (forward and backward), by the rule of `train.py`."""
    s = SHAPES[job["shape"]]
    width, layers = s["hidden_size"], s["num_hidden_layers"]
    keys = KEYS[job["shape"]] * width // s["num_attention_heads"]
    each = layers * (2 * width * width + 2 * width * keys + 3 * width * s["intermediate_size"])
    tokens = sum(len(ids) for ids, _ in data)
    trained = sum(sum(label != -100 for label in labels) for _, labels in data)
    attention = sum(6 * layers * width * len(ids) * (len(ids) + 1) for ids, _ in data)
    factor = 6 if job["method"] == "full" else 4  # frozen weights have no gradient of their own
    return factor * each * tokens + factor * width * VOCABULARY[job["shape"]] * trained + attention


class Clock:
    """Times every step but the first, and the peak of resident memory above what stands when steps begin."""

    def __init__(self) -> None:
        self.stamps: list[float] = []
        self.losses: list[float] = []

    def stamp(self) -> None:
        self.stamps.append(time.perf_counter())

    def seconds(self) -> list[float]:
        return [b - a for a, b in zip(self.stamps, self.stamps[1:], strict=False)]


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def report(job: dict[str, Any], clock: Clock, start_mib: float, state_mib: float, settings: str) -> None:
    """`state_mib`: weights, gradients and optimiser state; what the peak holds above these and the bare process is
    called activations."""
    data = rows(Path(job["shared"]), job["steps"] * job["batch"], job["shape"])
    timed = data[job["batch"] :]
    seconds = sum(clock.seconds())
    peak = peak_mib()
    print(
        json.dumps(
            {
                "tokens_per_s": sum(len(ids) for ids, _ in timed) / seconds,
                "flops_per_s": flops(job, timed) / seconds,
                "step_s": clock.seconds(),
                "losses": clock.losses,
                "peak_mib": peak,
                "activation_mib": peak - start_mib - state_mib,
                "settings": settings,
            }
        )
    )


def ours(job: dict[str, Any], lever: str) -> None:
    """Our step. `lever`: the name of the last one that is on, of those in `train.ABLATION`."""
    import torch

    torch.set_num_threads(job["threads"])
    from tuneloop.config import TrainConfig
    from tuneloop.train import attention, fuse, project
    from tuneloop.train.batch import Item
    from tuneloop.train.methods import adapter
    from tuneloop.train.objectives import build, tokens
    from tuneloop.train.optim import Optimizer
    from tuneloop.train.quicken import quicken
    from tuneloop.train.state import State, Trainer
    from tuneloop.train.step import take_step

    order = ("padded", "packed", "memory", "products", "projection", "compiled")
    on = set(order[: order.index(lever) + 1])
    data = rows(Path(job["shared"]), job["steps"] * job["batch"], job["shape"])
    items = [Item(str(i), ids, [x != -100 for x in labels], 1.0) for i, (ids, labels) in enumerate(data)]
    attention.register()
    if "memory" in on:
        fuse.keep_memory()
    if "products" not in on:
        attention.PRODUCTS_UP_TO = 0
    start = resident_mib()
    network = model(job, torch.bfloat16, attention.NAME if "packed" in on else "sdpa")
    passes = job.get("passes", 1)
    config = TrainConfig(
        method=job["method"],
        learning_rate=job["rate"],
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
        per_device_train_batch_size=job["batch"] // passes,
        gradient_accumulation_steps=passes,
        torch_compile="compiled" in on,
        weight_decay=0.0,
    )
    if job["method"] == "lora":
        torch.manual_seed(1)
        network = adapter(network, config)
    if "projection" not in on:
        tokens._heads[network] = None
        project.CHUNK = 2**40
    trainer = Trainer(
        network, config, items, [], Path(tempfile.mkdtemp()), job["rate"], "packed" in on, 0, build(config)
    )
    size = job["batch"]
    plan = [list(range(i, i + size)) for i in range(0, len(items), size)]
    quicken(trainer, plan)
    optimizer, state, clock = Optimizer(network, config, job["rate"]), State(), Clock()
    for step in plan:
        row = take_step(trainer, optimizer, state, [items[i] for i in step], len(plan))
        state.step += 1
        clock.stamp()
        clock.losses.append(row["loss"])
    report(job, clock, start, _state_mib(network, 2), f"bfloat16 weights, float32 masters, {passes} pass(es), {lever}")


def _state_mib(network: Any, weight_bytes: int) -> float:
    """Weights as they lie in memory, and for each trained one a float32 master, gradient and two moments."""
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    masters = trained * 4 if weight_bytes == 2 else 0
    return (total * weight_bytes + masters + trained * 12) / 2**20


def _arguments(job: dict[str, Any], kind: Any, **more: Any) -> Any:
    base = {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": job["batch"],
        "max_steps": job["steps"],
        "learning_rate": job["rate"],
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
        "train_sampling_strategy": "sequential",
        "seed": 0,
        "dataloader_num_workers": 0,
    }
    return kind(**{**base, **more})


def _watched(trainer: Any, job: dict[str, Any], start: float, settings: str) -> None:
    from transformers import TrainerCallback

    clock = Clock()

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.stamp()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    trainer.add_callback(Watch())
    trainer.train()
    weight = next(trainer.model.parameters()).element_size()
    report(job, clock, start, _state_mib(trainer.model, weight), settings)


def _dataset(job: dict[str, Any], *, mask: str) -> Any:
    from datasets import Dataset

    data = rows(Path(job["shared"]), job["steps"] * job["batch"], job["shape"])
    if mask == "labels":
        return Dataset.from_list([{"input_ids": i, "labels": x, "attention_mask": [1] * len(i)} for i, x in data])
    return Dataset.from_list([{"input_ids": i, "completion_mask": [int(x != -100) for x in y]} for i, y in data])


def _tokenizer(job: dict[str, Any]) -> Any:
    from transformers import PreTrainedTokenizerFast

    path = Path(job["shared"]) / "tokenizers" / "smollm-135m" / "tokenizer.json"
    return PreTrainedTokenizerFast(tokenizer_file=str(path), eos_token="<|endoftext|>", pad_token="<|endoftext|>")


def trl(job: dict[str, Any], kind: str) -> None:
    """`trl`: SFTConfig as it is (bfloat16 autocast, float32 weights, gradient checkpointing). `trl_best`: without
    checkpointing. `trl_bf16`: weights in bfloat16 too, no masters. `trl_packed`: packing on top of `trl_best`, whose
    steps hold other examples."""
    import torch

    torch.set_num_threads(job["threads"])
    from trl import SFTConfig, SFTTrainer

    start = resident_mib()
    more: dict[str, Any] = {"max_length": 512, "completion_only_loss": True}
    if kind != "trl":
        more["gradient_checkpointing"] = False
    if kind == "trl_packed":
        more |= {"packing": True, "max_length": 2048, "per_device_train_batch_size": 1}
    if kind == "trl_bf16":
        more["bf16"] = False
    if job["method"] == "lora":
        from peft import LoraConfig

        peft = LoraConfig(task_type="CAUSAL_LM", **LORA)
    trainer = SFTTrainer(
        model=model(job, torch.bfloat16 if kind == "trl_bf16" else torch.float32),
        args=_arguments(job, SFTConfig, **more),
        train_dataset=_dataset(job, mask="completion"),
        processing_class=_tokenizer(job),
        **({"peft_config": peft} if job["method"] == "lora" else {}),
    )
    said = ", ".join(f"{key}={value}" for key, value in more.items())
    precision = "weights" if kind == "trl_bf16" else "autocast"
    _watched(trainer, job, start, f"{kind}: bfloat16 {precision}, {said}")


def trainer(job: dict[str, Any]) -> None:
    """transformers.Trainer with padded batches, bfloat16 autocast."""
    import torch

    torch.set_num_threads(job["threads"])
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    start = resident_mib()
    network = model(job, torch.float32)
    if job["method"] == "lora":
        from peft import LoraConfig, get_peft_model

        network = get_peft_model(network, LoraConfig(task_type="CAUSAL_LM", **LORA))
    made = Trainer(
        model=network,
        args=_arguments(job, TrainingArguments, bf16=True),
        train_dataset=_dataset(job, mask="labels"),
        data_collator=DataCollatorForSeq2Seq(_tokenizer(job)),
    )
    _watched(made, job, start, "bfloat16 autocast, padded")


def litgpt(job: dict[str, Any]) -> None:
    """The step of LitGPT's `finetune/full.py` and `lora.py`: its model, its chunked loss, bfloat16 weights."""
    import torch
    from litgpt.utils import chunked_cross_entropy

    torch.set_num_threads(job["threads"])
    s, shape = SHAPES[job["shape"]], job["shape"]
    lora = job["method"] == "lora"
    if lora:
        from litgpt.lora import GPT, Config, mark_only_lora_as_trainable
    else:
        from litgpt import GPT, Config
    more = {f"lora_{k}": True for k in ("query", "key", "value", "projection", "mlp")} if lora else {}
    more |= {"lora_r": 16, "lora_alpha": 32} if lora else {}
    config = Config(
        name="bench",
        block_size=2048,
        vocab_size=VOCABULARY[shape],
        padded_vocab_size=VOCABULARY[shape],
        n_layer=s["num_hidden_layers"],
        n_head=s["num_attention_heads"],
        n_query_groups=KEYS[shape],
        n_embd=s["hidden_size"],
        intermediate_size=s["intermediate_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
        **more,
    )
    start = resident_mib()
    torch.manual_seed(0)
    network = GPT(config).to(torch.bfloat16)
    if lora:
        mark_only_lora_as_trainable(network)
    weights = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=job["rate"], weight_decay=0.0, fused=True)
    data = rows(Path(job["shared"]), job["steps"] * job["batch"], shape)
    clock = Clock()
    for i in range(0, len(data), job["batch"]):
        part = data[i : i + job["batch"]]
        width = max(len(ids) for ids, _ in part)
        ids = torch.tensor([x + [0] * (width - len(x)) for x, _ in part])
        labels = torch.tensor([y + [-100] * (width - len(y)) for _, y in part])
        logits = network(ids, lm_head_chunk_size=128)
        logits[-1] = logits[-1][..., :-1, :]
        loss = chunked_cross_entropy(logits, labels[..., 1:], chunk_size=0)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.stamp()
        clock.losses.append(loss.item())
    report(job, clock, start, _state_mib(network, 2), "bf16-true, lm_head_chunk_size 128, its own initial weights")


def llamafactory(job: dict[str, Any]) -> None:
    """`run_exp` on a saved model and the same rows as prompt and answer, bfloat16, its plainest settings."""
    import torch

    torch.set_num_threads(job["threads"])
    top = Path(tempfile.mkdtemp())
    start = resident_mib()
    network = model(job, torch.float32)
    network.save_pretrained(top / "model")
    tokenizer = _tokenizer(job)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    tokenizer.save_pretrained(top / "model")
    del network
    data = rows(Path(job["shared"]), job["steps"] * job["batch"], job["shape"])
    texts = []
    for ids, labels in data:
        cut = sum(x == -100 for x in labels)
        texts.append({"instruction": tokenizer.decode(ids[:cut]), "input": "", "output": tokenizer.decode(ids[cut:-1])})
    (top / "rows.json").write_text(json.dumps(texts))
    (top / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    from llamafactory.train.tuner import run_exp
    from transformers import TrainerCallback

    clock = Clock()
    held: dict[str, Any] = {}

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *_: Any, model: Any = None, **__: Any) -> None:
            held["model"] = model
            clock.stamp()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(float(logs["loss"]))

    run_exp(
        {
            "model_name_or_path": str(top / "model"),
            "stage": "sft",
            "do_train": True,
            "template": "empty",
            "finetuning_type": job["method"],
            "dataset": "rows",
            "dataset_dir": str(top),
            "cutoff_len": 512,
            "output_dir": str(top / "out"),
            "per_device_train_batch_size": job["batch"],
            "max_steps": job["steps"],
            "learning_rate": job["rate"],
            "lr_scheduler_type": "constant",
            "bf16": True,
            "use_cpu": True,
            "logging_steps": 1,
            "save_strategy": "no",
            "report_to": "none",
            "disable_shuffling": True,
            "gradient_accumulation_steps": 1,
            "lora_rank": 16,
            "lora_alpha": 32,
            "lora_target": "all",
            "disable_gradient_checkpointing": True,
            "overwrite_cache": True,
        },
        callbacks=[Watch()],
    )
    weight = next(held["model"].parameters()).element_size()
    report(job, clock, start, _state_mib(held["model"], weight), "bf16, gradient checkpointing off")


def main() -> None:
    side, job = sys.argv[1], json.loads(sys.argv[2])
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    name, _, lever = side.partition(":")
    if name == "ours":
        ours(job, lever or "compiled")
    elif name.startswith("trl"):
        trl(job, name)
    else:
        {"trainer": trainer, "litgpt": litgpt, "llamafactory": llamafactory}[name](job)


if __name__ == "__main__":
    main()
