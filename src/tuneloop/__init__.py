"""Fine-tune a language model and prove that it got better."""

from __future__ import annotations

import os
from typing import Any

# torch then aligns large blocks on the CPU to pages and asks for huge ones; it reads this at its first block. On glibc
# 2.36 a training step had 25 % less memory at its peak (docs/training.md has the figures).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["__version__", "analyze", "compare", "evaluate", "prepare", "run", "train"]

_HOMES = {
    "prepare": "tuneloop.data",
    "train": "tuneloop.train",
    "evaluate": "tuneloop.evaluate",
    "compare": "tuneloop.evaluate",
    "analyze": "tuneloop.analyze",
    "run": "tuneloop.loop",
}


def __getattr__(name: str) -> Any:
    # Late, so that `import tuneloop` and `tuneloop --help` never import torch. A subpackage of the same name
    # (tuneloop.train) takes the attribute once it is imported, so the stage packages are callable by their function.
    if name not in _HOMES:
        raise AttributeError(f"module 'tuneloop' has no attribute '{name}'")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
