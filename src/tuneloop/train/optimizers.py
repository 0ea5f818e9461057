"""The update rules by name, from torch and kept libraries. Each maker takes parameter groups and gives optimisers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tuneloop.config import TrainConfig
from tuneloop.errors import PrerequisiteError, UsageError

Groups = list[dict[str, Any]]


def make(groups: Groups, config: TrainConfig, device: str) -> list[torch.optim.Optimizer]:
    """The optimisers that together update all groups. Raises UsageError 261, PrerequisiteError 262."""
    if config.optim == "adamw_8bit" and device not in ("cpu", "cuda"):
        raise _not_here(config.optim, device)
    return MAKERS[config.optim](groups, config, device)


def _not_here(name: str, device: str) -> UsageError:
    return UsageError(
        261, f"the optimiser {name} does not run on {device}", where="train.optim", cure="--set train.optim=adamw"
    )


def _library(name: str, wanted_by: str) -> Any:
    try:
        return __import__(name)
    except ImportError as error:
        raise PrerequisiteError(
            262, f"{wanted_by} needs the package {name}", where="train", cure=f"pip install {name}"
        ) from error


def _adam(config: TrainConfig) -> dict[str, Any]:
    return {"betas": (config.adam_beta1, config.adam_beta2), "eps": config.adam_epsilon}


def _adamw(groups: Groups, config: TrainConfig, device: str) -> list[torch.optim.Optimizer]:
    return [torch.optim.AdamW(groups, fused=device in ("cpu", "cuda"), **_adam(config))]


def _adamw_8bit(groups: Groups, config: TrainConfig, device: str) -> list[torch.optim.Optimizer]:
    """States in 8 bits (Dettmers et al. 2022); small weights keep 32, as the library has it."""
    found: torch.optim.Optimizer = _library("bitsandbytes", "adamw_8bit").optim.AdamW8bit(groups, **_adam(config))
    return [found]


def _adafactor(groups: Groups, config: TrainConfig, device: str) -> list[torch.optim.Optimizer]:
    return [torch.optim.Adafactor(groups)]


def _schedule_free(groups: Groups, config: TrainConfig, device: str) -> list[torch.optim.Optimizer]:
    """AdamW with averaging in place of a falling rate (Defazio et al. 2024)."""
    found = _library("schedulefree", "schedule_free").AdamWScheduleFree(groups, **_adam(config))
    found.train()
    return [found]


def _muon(groups: Groups, config: TrainConfig, device: str) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings, head and vectors.

    The updates of Muon are scaled to the size of AdamW's (`match_rms_adamw`), so one learning rate serves both.
    """
    inner = [{**g, "params": [p for p in g["params"] if p.ndim == 2 and not g["edge"]]} for g in groups]
    outer = [{**g, "params": [p for p in g["params"] if p.ndim != 2 or g["edge"]]} for g in groups]
    inner, outer = ([g for g in part if g["params"]] for part in (inner, outer))
    found: list[torch.optim.Optimizer] = []
    if inner:
        found.append(torch.optim.Muon(inner, adjust_lr_fn="match_rms_adamw"))
    return [*found, *(_adamw(outer, config, device) if outer else [])]


MAKERS: dict[str, Callable[[Groups, TrainConfig, str], list[torch.optim.Optimizer]]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "adafactor": _adafactor,
    "schedule_free": _schedule_free,
    "muon": _muon,
}
