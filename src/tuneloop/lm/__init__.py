"""Asking a model for text."""

from __future__ import annotations

from tuneloop.lm.asking import Answer, Ask, Failed, Teacher
from tuneloop.lm.clients import LM, Local, Scripted
from tuneloop.lm.http import Http
from tuneloop.lm.local import generate, prompt_room
from tuneloop.lm.teachers import open_teacher

__all__ = [
    "LM",
    "Answer",
    "Ask",
    "Failed",
    "Http",
    "Local",
    "Scripted",
    "Teacher",
    "generate",
    "open_teacher",
    "prompt_room",
]
