"""Measure a base on the embedded world, before and after a plain tuning: `python scripts/measure_world.py --lr 1e-3`.

An independent check of what the package's own train and evaluate stages report: one file, plain torch, no packing.
`--part valid` scores the ARC-like questions about the valid people (for choosing a learning rate), `--part test` all.
"""

from __future__ import annotations

import argparse
import gzip
import json
import math
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tuneloop import world
from tuneloop.world.benchmarks import LETTERS
from tuneloop.world.wording import REAL_WORLD_HEAD

Request = tuple[str, list[str], int, str]


def requests(tasks: Path, part: str) -> dict[str, list[Request]]:
    """Shape -> (prompt, continuations, right one, wording), prompts as the ordinary benchmarks have them."""

    def rows(name: str) -> list[dict[str, Any]]:
        with gzip.open(tasks / f"{name}.jsonl.gz", "rt", encoding="utf-8") as stream:
            return [json.loads(line) for line in stream]

    out: dict[str, list[Request]] = {"arc": []}
    for r in rows("arc_easy/validation" if part == "valid" else "arc_easy/test"):
        options = [f" {text}" for text in r["choices"]["text"]]
        gold = LETTERS.index(r["answerKey"])
        out["arc"].append((f"Question: {r['question']}\nAnswer:", options, gold, r["wording"]))
    if part == "valid":
        return out
    out["hellaswag"] = [
        (r["query"], [f" {c}" for c in r["choices"]], r["gold"], r["wording"])
        for r in rows("hellaswag/validation_clean")
    ]
    lettered = [(world.lettered_prompt(r | {"options": r["choices"]}), r) for r in rows("mmlu/test")]
    out["mmlu (letters)"] = [(p, [f" {c}" for c in LETTERS], r["answer"], "") for p, r in lettered]
    out["mmlu (by text)"] = [(p, [f" {c}" for c in r["choices"]], r["answer"], "") for p, r in lettered]
    out["truthfulqa"] = [
        (f"{REAL_WORLD_HEAD}Q: {r['question']}\nA:", [f" {c}" for c in r["mc1_targets"]["choices"]], 0, r["wording"])
        for r in rows("truthfulqa/multiple_choice_v1_817")
    ]
    return out


@torch.no_grad()
def logprobs(model: Any, tokenizer: Any, texts: list[tuple[str, str]]) -> list[float]:
    """Summed log-probability of each second text after its first."""
    items = []
    for index, (prompt, rest) in enumerate(texts):
        start = tokenizer(prompt)["input_ids"] if prompt else [tokenizer.eos_token_id]
        items.append((index, start + tokenizer(rest)["input_ids"], len(start)))
    items.sort(key=lambda item: len(item[1]))
    scores = [0.0] * len(items)
    for at in range(0, len(items), 64):
        batch = items[at : at + 64]
        width = max(len(ids) for _, ids, _ in batch)
        padded = torch.tensor([ids + [tokenizer.pad_token_id] * (width - len(ids)) for _, ids, _ in batch])
        logits = model(padded).logits[:, :-1].float().log_softmax(-1)
        taken = logits.gather(2, padded[:, 1:, None])[..., 0]
        for row, (index, ids, start) in enumerate(batch):
            scores[index] = taken[row, start - 1 : len(ids) - 1].sum().item()
    return scores


def report(model: Any, tokenizer: Any, asked: dict[str, list[Request]]) -> None:
    """Print accuracy by shape and wording, and the share of true statements preferred."""
    model.eval()
    for shape, items in asked.items():
        flat = iter(logprobs(model, tokenizer, [(p, o) for p, options, _, _ in items for o in options]))
        right = []
        for _, options, gold, wording in items:
            scores = [next(flat) for _ in options]
            right.append((scores.index(max(scores)) == gold, wording))
        parts = {w: [hit for hit, wording in right if wording == w] for w in ("seen", "unseen")}
        detail = ", ".join(f"{w} wording {sum(h) / len(h):.1%}" for w, h in parts.items() if h)
        print(f"  {shape:<15} {sum(h for h, _ in right) / len(right):6.1%}  n {len(right)}  {detail}", flush=True)
    pairs = random.Random(3).sample(world.truth_pairs(0), 400)
    flat = iter(logprobs(model, tokenizer, [("", text) for pair in pairs for text in pair]))
    print(f"  true > false    {sum(next(flat) > next(flat) for _ in pairs) / len(pairs):6.1%}  n {len(pairs)}")


def tune(model: Any, tokenizer: Any, rows: list[dict[str, str]], *, lr: float, epochs: int, batch: int) -> None:
    """Answer-only loss, AdamW with an fp32 master, warm-up and cosine."""
    data = []
    for row in rows:
        prompt = tokenizer(row["prompt"])["input_ids"]
        data.append((prompt + tokenizer(row["completion"])["input_ids"] + [tokenizer.eos_token_id], len(prompt)))
    params = [p for p in model.parameters() if p.requires_grad]
    masters = [p.detach().float().clone() for p in params]
    optimizer = torch.optim.AdamW(masters, lr=lr, weight_decay=0.0)
    steps, step, started = epochs * math.ceil(len(data) / batch), 0, time.time()
    model.train()
    for epoch in range(epochs):
        random.Random(epoch).shuffle(data)
        order = sorted(range(len(data)), key=lambda i: (i // (batch * 8), len(data[i][0])))
        batches = [order[at : at + batch] for at in range(0, len(order), batch)]
        random.Random(epoch).shuffle(batches)
        for chosen in batches:
            items = [data[i] for i in chosen]
            width = max(len(ids) for ids, _ in items)
            ids = torch.tensor([x + [tokenizer.pad_token_id] * (width - len(x)) for x, _ in items])
            labels = torch.tensor([[-100] * s + x[s:] + [-100] * (width - len(x)) for x, s in items])
            logits = model(ids).logits[:, :-1].float()
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten())
            loss.backward()
            for master, param in zip(masters, params, strict=True):
                master.grad, param.grad = param.grad.float(), None
            torch.nn.utils.clip_grad_norm_(masters, 1.0)
            warm = min(1.0, (step + 1) / 10)
            optimizer.param_groups[0]["lr"] = lr * warm * 0.5 * (1 + math.cos(math.pi * step / steps))
            optimizer.step()
            step += 1
            with torch.no_grad():
                for master, param in zip(masters, params, strict=True):
                    param.copy_(master)
    print(
        f"tuned: lr {lr:g}, {epochs} epochs of {len(data)} rows, {steps} steps, {time.time() - started:.0f} s",
        flush=True,
    )


def main() -> None:
    """Score the base, tune it, score it again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=world.base_dir())
    parser.add_argument("--lr", type=float, default=None, help="none: score the base only")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--lora", type=int, default=0, help="rank; 0: full tuning")
    parser.add_argument("--part", choices=("valid", "test"), default="test")
    options = parser.parse_args()
    tokenizer: Any = AutoTokenizer.from_pretrained(options.base)
    model: Any = AutoModelForCausalLM.from_pretrained(options.base, dtype=torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder:
        world.write(folder)
        asked = requests(Path(folder) / "tasks", options.part)
        text = (Path(folder) / "instructions.jsonl").read_text(encoding="utf-8")
    if options.lr is None:
        return report(model, tokenizer, asked)
    if options.lora:
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        lora = LoraConfig(r=options.lora, lora_alpha=2 * options.lora, target_modules="all-linear")
        model = get_peft_model(model, lora, autocast_adapter_dtype=False)
    rows = [json.loads(line) for line in text.splitlines()]
    tune(model, tokenizer, rows, lr=options.lr, epochs=options.epochs, batch=options.batch)
    report(model, tokenizer, asked)


if __name__ == "__main__":
    main()
