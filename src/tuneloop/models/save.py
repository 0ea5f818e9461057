"""Writing tokenizers beside tunes, and merging an adapter with proof that nothing changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneloop.errors import PartialError
from tuneloop.store import read_json


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Tokenizer and chat template, as every loader of the hub's format reads them."""
    tokenizer.save_pretrained(folder)


def save_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """A full model (safetensors) with its tokenizer and chat template."""
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def save_adapter(model: Any, tokenizer: Any, folder: Path, *, base: str) -> None:
    """A PEFT adapter that names `base` as its base, with the tokenizer and chat template it was trained with."""
    for config in model.peft_config.values():
        config.base_model_name_or_path = base
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder)


def merge_folder(folder: Path, out: Path) -> dict[str, float]:
    """Merges a saved adapter in float32 and writes the full model: {'gap': largest logit difference}."""
    from tuneloop.models.load import load_model, load_tokenizer

    classifier = read_json(folder / "adapter_config.json").get("task_type") == "SEQ_CLS"
    model = load_model(str(folder), dtype="float32", device="cpu", kind="reward" if classifier else "causal")
    return {"gap": merge_adapter(model, load_tokenizer(str(folder)), out)}


def merge_adapter(model: Any, tokenizer: Any, out: Path, *, bound: float = 1e-3) -> float:
    """Merges a PEFT model into its base, saves it, loads it again; returns the largest logit difference.

    `bound` is relative to the largest logit. Raises PartialError 410 above it; the adapter is kept in any case.
    """
    import torch

    ids = torch.arange(5, 37).remainder(model.config.vocab_size)[None].to(model.device)
    with torch.no_grad():
        before = model(ids).logits.float()
        merged = model.merge_and_unload()
        merged.save_pretrained(out)
        tokenizer.save_pretrained(out)
        again: Any = type(merged).from_pretrained(out, dtype=merged.dtype)
        again = again.to(ids.device).eval()
        after = again(ids).logits.float()
    gap = (before - after).abs().max().item()
    if gap > bound * before.abs().max().item() and merged.dtype == torch.float32:
        raise PartialError(
            410, f"the merged model differs from the adapter by {gap:.2e}", where=str(out), cure="use the adapter"
        )
    return float(gap)
