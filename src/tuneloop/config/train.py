"""How the weights move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuneloop.config.base import Section


class TrainConfig(Section):
    method: Literal["lora", "full"] = "lora"
    # None: chosen by method and printed with its reason.
    learning_rate: float | None = Field(None, gt=0)
    num_train_epochs: float = Field(3.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    per_device_train_batch_size: int = Field(16, ge=1, description="examples in one forward pass")
    gradient_accumulation_steps: int = Field(1, ge=1)
    packing: bool = True
    max_length: int | None = Field(None, ge=8, description="tokens; longer examples are dropped aloud")
    lora_r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, ge=0, description="0 turns clipping off")
    lr_scheduler_type: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    eval_steps: int | None = Field(None, ge=1, description="None: once an epoch")
    save_steps: int | None = Field(None, ge=1, description="None: once an epoch")
    save_total_limit: int = Field(2, ge=1)
    early_stopping_patience: int | None = Field(None, ge=1, description="evaluations without a better valid loss")
    load_best_model_at_end: bool = True
    merge: bool = Field(
        False,
        description="also write the full model beside the adapter, logits compared",
    )
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    seed: int = 0
