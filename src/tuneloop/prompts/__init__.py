"""From examples to tokens: templates, exact masks, prompts. Training, chat and server use the same."""

from __future__ import annotations

from tuneloop.prompts.encode import Encoded, encode, encode_pair, encode_prompt, render_prompt
from tuneloop.prompts.templates import NAMED, apply_template

__all__ = ["NAMED", "Encoded", "apply_template", "encode", "encode_pair", "encode_prompt", "render_prompt"]
