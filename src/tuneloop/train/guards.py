"""What is known to ruin a tune and can be seen before the first step, or in the course of the loss."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from tuneloop.config import TrainConfig
from tuneloop.console import warn
from tuneloop.errors import DataError, PartialError, TuneloopError, UsageError
from tuneloop.models import eos_ids
from tuneloop.train.batch import Item
from tuneloop.train.precision import native_bfloat16

FAR = 10.0  # times above or below the rule's learning rate
PATIENCE = 8  # steps in a row that a loss must stand above the bound before it counts as exploded


def check(network: Any, tokenizer: Any, items: list[Item], rate: float, usual: float) -> list[TuneloopError]:
    """Raises what cannot be trained on; returns the rest, which are warnings. `usual` is the rule's learning rate."""
    found = [
        _vocabulary(network, tokenizer, items),
        _end_never_trained(network, tokenizer, items),
        _pad_is_end(network, tokenizer, items),
        _rate(rate, usual),
        _emulated_bfloat16(network),
    ]
    return [warning for warning in found if warning is not None]


def say_all(warnings: list[TuneloopError]) -> None:
    for warning in warnings:
        warn(str(warning))


def _vocabulary(network: Any, tokenizer: Any, items: list[Item]) -> TuneloopError | None:
    """Every id must have an embedding; an index past the table is a crash on a CPU and garbage on some GPUs."""
    rows = int(network.get_input_embeddings().weight.shape[0])
    highest = max((t for item in items for t in item.input_ids), default=0)
    if highest < rows and len(tokenizer) <= rows:
        return None
    if highest < rows:
        return UsageError(
            254,
            f"the tokenizer has {len(tokenizer):,} tokens, the model {rows:,}; the data uses none of the others",
            where="model.name",
            cure="nothing for this run; such a token in a prompt later is an error",
        )
    raise UsageError(
        246,
        f"token {highest} of the data has no embedding: the tokenizer has {len(tokenizer):,}, the model {rows:,}",
        where="model.name",
        expected="the tokenizer that the model was made with",
        cure="load both from the same folder or hub name",
    )


def _end_never_trained(network: Any, tokenizer: Any, items: list[Item]) -> TuneloopError | None:
    """Without an end token among the targets the tune never learns to stop."""
    ends = set(eos_ids(network, tokenizer))
    if any(on and token in ends for item in items for token, on in zip(item.input_ids, item.trained, strict=True)):
        return None
    names = ", ".join(repr(tokenizer.convert_ids_to_tokens(i)) for i in sorted(ends)) or "none is set"
    return DataError(
        352,
        f"no end token is trained in any of {len(items):,} examples",
        where="chat template and tokenizer",
        expected=f"answers that end with a token at which a server stops ({names})",
        cure="set eos_token to the template's end of turn, or use --set model.template=plain",
    )


def _pad_is_end(network: Any, tokenizer: Any, items: list[Item]) -> TuneloopError | None:
    """Here padding is kept out by position, so this trains right; tools that mask by value lose the end token."""
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id not in eos_ids(network, tokenizer):
        return None
    return UsageError(
        247,
        f"the padding token is the end token ({tokenizer.pad_token!r})",
        where="tokenizer_config.json",
        expected="two tokens: trainers that leave out padding by its value never teach such a model to stop",
        cure="nothing for this run, which trains end tokens; give pad_token a token of its own for other tools",
    )


def _rate(rate: float, usual: float) -> TuneloopError | None:
    if usual / FAR <= rate <= usual * FAR:
        return None
    return UsageError(
        248,
        f"learning_rate {rate:g} is {rate / usual:.3g} times the usual {usual:g}",
        where="train.learning_rate",
        expected=f"{usual / FAR:.2g} to {usual * FAR:.2g} for this method and size",
        cure="--set train.learning_rate=auto measures it on your data",
    )


def unused(config: TrainConfig, processes: int, valid: bool) -> list[TuneloopError]:
    """Warnings for settings that do nothing in this run."""
    full, adapter = config.method == "full", config.method == "lora"
    alone, sharded = processes == 1, config.parallel == "fsdp" and processes > 1
    table: list[tuple[str, Any, bool, str]] = [
        ("merge", config.merge, full, "method full, which writes the whole model anyway"),
        ("use_dora", config.use_dora, full, "method full"),
        ("use_rslora", config.use_rslora, full, "method full"),
        ("loraplus_lr_ratio", config.loraplus_lr_ratio != 1, full, "method full"),
        ("parallel", config.parallel == "fsdp", alone, "one process"),
        ("torch_compile", config.torch_compile, sharded, "shards"),
        ("bf16_update", config.bf16_update == "stochastic", adapter or config.dtype == "float32", "float32 weights"),
        ("label_smoothing_factor", config.label_smoothing_factor, config.objective not in ("sft", "dpo"), "this loss"),
        ("z_loss", config.z_loss, config.objective != "sft", "this loss"),
        ("eval_samples", config.eval_samples, not valid, "data without a valid split"),
        ("early_stopping_patience", config.early_stopping_patience, not valid and not config.eval_tasks,
         "data without a valid split"),
    ]  # fmt: skip
    return [
        UsageError(
            256, f"{key} has no effect with {why}", where=f"train.{key}", cure="leave it out; nothing else changes"
        )
        for key, asked, idle, why in table
        if asked and idle
    ]


def _emulated_bfloat16(network: Any) -> TuneloopError | None:
    """Without products of its own a processor converts every operand: 1024^3 took 2.9 times as long as in float32."""
    if network.device.type != "cpu" or network.dtype != torch.bfloat16 or native_bfloat16():
        return None
    return UsageError(
        255,
        "this processor multiplies bfloat16 by way of float32, which is slower than float32 itself",
        where="train.dtype",
        expected="a processor with AVX512_BF16 or AMX",
        cure="--set train.dtype=float32 (or auto)",
    )


@dataclass
class Explosion:
    """Watches the loss. Exploded: above twice the start and above guessing, for PATIENCE steps in a row."""

    vocabulary: int
    start: float | None = None
    high: int = 0
    first: list[float] | None = None

    def see(self, loss: float, step: int, where: str) -> None:
        """Raises PartialError 421."""
        if self.start is None:
            self.first = [*(self.first or []), loss]
            if len(self.first) == 3:
                self.start = median(self.first)
            return
        bound = max(2 * self.start, math.log(self.vocabulary) + 1)
        self.high = self.high + 1 if loss > bound else 0
        if self.high >= PATIENCE:
            raise PartialError(
                421,
                f"the loss exploded: {loss:.3g} at step {step}, {self.start:.3g} at the start",
                where=where,
                expected=f"less than {bound:.3g}, which is worse than guessing",
                cure="lower train.learning_rate or raise train.warmup_ratio; the checkpoints are kept",
            )
