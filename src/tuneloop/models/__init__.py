"""Models and tokenizers, loaded safely (safetensors only, no remote code) and saved so that others load them."""

from __future__ import annotations

from tuneloop.models.load import (
    context_length,
    eos_ids,
    load_model,
    load_random,
    load_shape,
    load_tokenizer,
    locate,
    pick_device,
    pick_dtype,
    plain_attention,
    why_dtype,
)
from tuneloop.models.save import merge_adapter, merge_folder, save_adapter, save_model, save_tokenizer
from tuneloop.models.unpack import unpack

__all__ = [
    "context_length",
    "eos_ids",
    "load_model",
    "load_random",
    "load_shape",
    "load_tokenizer",
    "locate",
    "merge_adapter",
    "merge_folder",
    "pick_device",
    "pick_dtype",
    "plain_attention",
    "save_adapter",
    "save_model",
    "save_tokenizer",
    "unpack",
    "why_dtype",
]
