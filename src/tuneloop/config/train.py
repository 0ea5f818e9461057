"""How the weights move."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from tuneloop.config.base import Section, Seed
from tuneloop.config.eval import TaskSpec

# Keys whose value may be `auto`: measured at the start, and said with the reason.
AUTO = ("learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps")


class TrainConfig(Section):
    method: Literal["lora", "full"] = "lora"
    objective: Literal["sft", "dpo", "orpo", "simpo", "kto", "reward", "distill"] = "sft"
    beta: float = Field(0.1, gt=0, description="dpo, kto: pull to the reference; orpo, simpo: weight of the preference")
    simpo_gamma: float = Field(0.5, ge=0, description="margin between chosen and rejected")
    desirable_weight: float = Field(1.0, ge=0)
    undesirable_weight: float = Field(1.0, ge=0)
    center_rewards_coefficient: float = Field(0.0, ge=0)
    teacher: str | None = Field(None, description="folder or hub name of the model that distill learns from")
    distill_beta: float = Field(0.0, ge=0, le=1, description="0: forward KL, 1: reverse KL, between: JSD")
    distill_temperature: float = Field(1.0, gt=0)
    label_smoothing_factor: float = Field(0.0, ge=0, lt=0.5)
    z_loss: float = Field(0.0, ge=0, description="weight of the squared log-normaliser")
    # None: chosen by method and printed with its reason.
    learning_rate: float | None = Field(None, gt=0)
    num_train_epochs: float = Field(3.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    per_device_train_batch_size: int = Field(16, ge=1, description="examples in one forward pass")
    gradient_accumulation_steps: int = Field(1, ge=1)
    batch_tokens: int | None = Field(None, ge=8, description="a step holds examples up to so many tokens instead")
    pass_tokens: int | None = Field(
        None, ge=8, description="packs a step first-fit into passes of at most so many tokens; the step stays the same"
    )
    packing: bool = True
    max_length: int | None = Field(None, ge=8, description="tokens; longer examples are dropped aloud")
    lora_r: int = Field(16, ge=1)
    lora_alpha: int = Field(32, ge=1)
    lora_dropout: float = Field(0.0, ge=0, lt=1)
    lora_target_modules: str | list[str] = "all-linear"
    use_rslora: bool = Field(False, description="scales by alpha / sqrt(r)")
    use_dora: bool = Field(False, description="magnitude and direction apart")
    loraplus_lr_ratio: float = Field(1.0, gt=0, description="learning rate of B over that of A (LoRA+: 16)")
    load_in_4bit: bool = Field(False, description="QLoRA: the base in NF4 (needs bitsandbytes)")
    freeze: list[str] = Field(default_factory=list, description="weights that stay, as patterns: model.layers.[0-5].*")
    neftune_noise_alpha: float = Field(0.0, ge=0, description="noise on embeddings while training")
    lr_groups: dict[str, Annotated[float, Field(ge=0)]] = Field(
        default_factory=dict, description="pattern of names: factor on the rate"
    )
    optim: Literal["adamw", "adamw_8bit", "muon", "schedule_free", "adafactor"] = "adamw"
    bf16_update: Literal["master", "stochastic"] = Field(
        "master", description="bfloat16 weights: float32 masters, or stochastic rounding"
    )
    torch_compile: bool | None = Field(None, description="None: where it saves more time than it takes")
    weight_decay: float = Field(0.0, ge=0)
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    adam_beta2: float = Field(0.999, ge=0, lt=1)
    adam_epsilon: float = Field(1e-8, gt=0)
    max_grad_norm: float = Field(1.0, ge=0, description="0 turns clipping off")
    lr_scheduler_type: Literal["cosine", "linear", "constant", "warmup_stable_decay"] = "cosine"
    lr_decay_ratio: float = Field(0.2, gt=0, le=1, description="share of the steps in which warmup_stable_decay falls")
    warmup_ratio: float = Field(0.03, ge=0, lt=1)
    eval_steps: int | None = Field(None, ge=1, description="None: once an epoch")
    save_steps: int | None = Field(None, ge=1, description="None: once an epoch")
    save_total_limit: int = Field(2, ge=1)
    metric_for_best_model: str = Field("valid_loss", description="or the name of one of eval_tasks")
    early_stopping_patience: int | None = Field(None, ge=1, description="evaluations without a better value of it")
    load_best_model_at_end: bool = True
    merge: bool = Field(
        False,
        description="also write the full model beside the adapter, logits compared",
    )
    eval_tasks: list[TaskSpec] = Field(default_factory=list, description="scored at every evaluation, on a fixed slice")
    eval_task_limit: int = Field(64, ge=1, description="rows of the slice where a task names no limit")
    eval_samples: int = Field(0, ge=0, description="answers to valid rows written at every evaluation")
    gradient_checkpointing: Literal["none", "selective", "full"] = Field(
        "none", description="selective computes every second layer again, full every layer"
    )
    activation_offload: bool = Field(False, description="keeps activations in CPU memory between forward and backward")
    devices: int = Field(1, ge=1, description="processes, one a device; a step holds the same examples for any number")
    parallel: Literal["ddp", "fsdp"] = Field("ddp", description="whole copies, or weights and states in shards (FSDP2)")
    max_restarts: int = Field(2, ge=0, description="starts after a lost process, from the last checkpoint")
    report_to: list[Literal["tensorboard", "trackio", "mlflow", "wandb"]] = Field(
        default_factory=list, description="beside log.jsonl, which is always written"
    )
    auto: list[Literal["learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps"]] = Field(
        default_factory=list, description="filled by writing `auto` as the value of such a key"
    )
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    device: str = "auto"
    seed: Seed = 0

    @model_validator(mode="before")
    @classmethod
    def _plain_words(cls, value: Any) -> Any:
        """`learning_rate: auto` moves into `auto`; booleans and single names as the HF trainer takes them."""
        if not isinstance(value, dict):
            return value
        value = dict(value)
        asked = [key for key in AUTO if value.get(key) == "auto"]
        if asked:
            value["auto"] = [*(value.get("auto") or []), *asked]
            value = {key: inner for key, inner in value.items() if key not in asked}
        again = {True: "full", False: "none", "off": "none"}
        if "gradient_checkpointing" in value and not isinstance(value["gradient_checkpointing"], list | dict):
            value["gradient_checkpointing"] = again.get(
                value["gradient_checkpointing"], value["gradient_checkpointing"]
            )
        if value.get("report_to") in ("none", None):
            value.pop("report_to", None)
        optim = {"adamw_torch": "adamw", "adamw_torch_fused": "adamw", "schedule_free_adamw": "schedule_free"}
        optim |= {"adamw_bnb_8bit": "adamw_8bit"}
        if isinstance(value.get("optim"), str):
            value["optim"] = optim.get(value["optim"], value["optim"])
        if value.get("lr_scheduler_type") == "wsd":
            value["lr_scheduler_type"] = "warmup_stable_decay"
        for key in ("report_to", "eval_tasks", "freeze"):
            if isinstance(value.get(key), str):
                value[key] = value[key].split(",")
        return value

    @model_validator(mode="after")
    def _together(self) -> TrainConfig:
        """What cannot stand together."""
        if (self.teacher is None) == (self.objective == "distill"):
            raise ValueError("objective distill needs a teacher, and nothing else takes one")
        if self.pass_tokens and "per_device_train_batch_size" in self.auto:
            raise ValueError("pass_tokens says how large a pass is: per_device_train_batch_size cannot be auto")
        if self.load_in_4bit and self.method != "lora":
            raise ValueError("load_in_4bit trains an adapter: method must be lora")
        if self.objective == "reward" and (self.eval_samples or self.eval_tasks):
            raise ValueError("a reward model writes and scores no answers: leave out eval_samples and eval_tasks")
        if self.batch_tokens and (self.gradient_accumulation_steps > 1 or "gradient_accumulation_steps" in self.auto):
            raise ValueError("batch_tokens says how large a step is: leave out gradient_accumulation_steps")
        return self
