"""A thin chat: one conversation, one or two models that answer it."""

from __future__ import annotations

import sys
from typing import Any

from tuneloop.lm import generate
from tuneloop.models import load_model, load_tokenizer
from tuneloop.prompts import apply_template, encode_prompt


def chat(names: list[str], template: str | None, prompt: str | None, max_new_tokens: int) -> None:
    """Answers `prompt`, or every line of stdin until an empty one; each model keeps its own history."""
    speakers = [_speaker(name, template) for name in names]
    if prompt is not None:
        _turn(speakers, prompt, max_new_tokens)
        return
    while (line := _ask()) is not None:
        _turn(speakers, line, max_new_tokens)


def _speaker(name: str, template: str | None) -> dict[str, Any]:
    tokenizer = load_tokenizer(name)
    # A template named on the command line is for a base that has none; a tune keeps the one it was trained with.
    apply_template(tokenizer, None if getattr(tokenizer, "chat_template", None) else template)
    return {
        "name": name,
        "model": load_model(name),
        "tokenizer": tokenizer,
        "messages": [],
    }


def _ask() -> str | None:
    try:
        line = input("you> " if sys.stdin.isatty() else "")
    except EOFError:
        return None
    return line.strip() or None


def _turn(speakers: list[dict[str, Any]], text: str, max_new_tokens: int) -> None:
    for speaker in speakers:
        messages = speaker["messages"]
        messages.append({"role": "user", "content": text})
        ids = encode_prompt(messages, speaker["tokenizer"])
        answer = generate(speaker["model"], speaker["tokenizer"], [ids], max_new_tokens=max_new_tokens)[0].strip()
        messages.append({"role": "assistant", "content": answer})
        print(f"{speaker['name']}> {answer}" if len(speakers) > 1 else answer, flush=True)
