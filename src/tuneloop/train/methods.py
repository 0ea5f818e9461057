"""Which weights are trained, and through what: all, an adapter in PEFT's format, or all but the frozen ones."""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch

from tuneloop.config import TrainConfig
from tuneloop.console import say
from tuneloop.errors import UsageError


def adapter(network: Any, config: TrainConfig) -> Any:
    """The model with a fresh LoRA adapter (rsLoRA, DoRA as asked); its weights are float32. Raises UsageError 240."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=config.lora_target_modules,
        use_rslora=config.use_rslora,
        use_dora=config.use_dora,
        task_type="SEQ_CLS" if config.objective == "reward" else "CAUSAL_LM",
    )
    try:
        return get_peft_model(network, settings)
    except ValueError as error:
        raise UsageError(240, f"no adapter fits: {error}", where="train.lora_target_modules") from error


def freeze(network: Any, patterns: list[str]) -> None:
    """Weights whose name fits a pattern stay as they are. Raises UsageError 264 when one fits none, or all do."""
    for pattern in patterns:
        for weight in _fitting(network, pattern, "train.freeze"):
            weight.requires_grad = False
    if patterns and not any(weight.requires_grad for weight in network.parameters()):
        raise UsageError(264, "every weight is frozen", where="train.freeze", cure="freeze fewer")


def check_groups(network: Any, groups: dict[str, float]) -> None:
    """Raises UsageError 264 when a learning rate is given to weights that are not there or do not move."""
    for pattern in groups:
        if not any(weight.requires_grad for weight in _fitting(network, pattern, "train.lr_groups")):
            raise UsageError(
                264,
                f"no weight like '{pattern}' is trained",
                where="train.lr_groups",
                cure="name weights that the method trains and train.freeze leaves free",
            )


def _fitting(network: Any, pattern: str, where: str) -> list[torch.nn.Parameter]:
    found = [weight for name, weight in network.named_parameters() if fnmatch(name, pattern)]
    if not found:
        names = [name for name, _ in network.named_parameters()]
        raise UsageError(
            264,
            f"no weight is named like '{pattern}'",
            where=where,
            expected=f"a pattern over names such as {names[0]} or {names[-1]}",
            cure="* stands for any characters, [0-5] for one of these",
        )
    return found


def noisy_embeddings(network: Any, alpha: float) -> None:
    """NEFTune (Jain et al. 2023): uniform noise of norm alpha / sqrt(tokens * width) a text, while training."""
    if not alpha:
        return
    say(f"NEFTune: noise {alpha:g} on embeddings while training")
    network.get_input_embeddings().register_forward_hook(lambda module, _, out: _noise(module, out, alpha))


def _noise(module: Any, out: torch.Tensor, alpha: float) -> torch.Tensor:
    """out (rows, T, D). In a packed row each token has the bound of its own text's length."""
    from tuneloop.train.attention import text_lengths

    if not module.training:
        return out
    tokens = text_lengths(out.shape[1], out.device) if out.shape[0] == 1 else torch.tensor(float(out.shape[1]))
    bound = alpha / (tokens * out.shape[-1]).sqrt()
    noise = torch.empty_like(out).uniform_(-1, 1)
    return out + noise * bound.to(out).reshape(1, -1, 1)
