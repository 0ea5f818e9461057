"""Asking a model for text."""

from __future__ import annotations

from tuneloop.lm.clients import LM, Http, Local, Scripted
from tuneloop.lm.local import generate

__all__ = ["LM", "Http", "Local", "Scripted", "generate"]
