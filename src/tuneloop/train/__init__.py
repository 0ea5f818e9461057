"""Training: a data folder and a base in, a model folder out."""

from __future__ import annotations

from tuneloop.stage import callable_stage
from tuneloop.train.run import train

__all__ = ["train"]

callable_stage(__name__)
