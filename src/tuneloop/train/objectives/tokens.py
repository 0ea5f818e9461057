"""Cross-entropy at trained positions only, so the output projection runs nowhere else."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tuneloop.train.attention import packed
from tuneloop.train.batch import Layout

CHUNK = 2**25  # float32 scores that may stand in memory at once


def token_losses(model: Any, layout: Layout) -> torch.Tensor:
    """[N] cross-entropies in float32, one a trained token, for a packed or padded layout.

    The output projection runs only where a token is trained, if the model can be asked for that.
    """
    width = layout.input_ids.shape[1]
    # A padded batch keeps the union of the columns that any of its rows needs.
    rows, columns = layout.source // width, layout.source % width
    kept, where = torch.unique(columns, return_inverse=True)
    inputs: dict[str, Any] = {"input_ids": layout.input_ids, "use_cache": False}
    if takes(model, "position_ids"):
        inputs["position_ids"] = layout.positions
    if takes(model, "logits_to_keep"):
        inputs["logits_to_keep"] = kept
    else:
        where = columns
    if layout.mask is not None:
        logits = model(**inputs, attention_mask=layout.mask).logits
    else:
        with packed(layout.texts, layout.input_ids.device):
            logits = model(**inputs).logits
    return _cross_entropies(_at(logits, rows, where), layout.target)


def _at(logits: torch.Tensor, rows: torch.Tensor, where: torch.Tensor) -> torch.Tensor:
    """[N, V]; a packed row whose every kept position is a target needs no copy."""
    return logits[0] if logits.shape[:2] == (1, len(where)) else logits[rows, where]


def takes(model: Any, name: str) -> bool:
    """Whether the model's forward has an argument of this name, also behind an adapter."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(inner.forward).parameters


def _cross_entropies(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """In pieces whose float32 copies are made again for the gradient, once they would be large."""
    size = max(1, CHUNK // logits.shape[-1])
    if len(target) <= size:
        return _chunk(logits, target)
    pieces = zip(logits.split(size), target.split(size), strict=True)
    return torch.cat([checkpoint(_chunk, part, goal, use_reentrant=False) for part, goal in pieces])


def _chunk(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return cross_entropy(logits.float(), target, reduction="none")
