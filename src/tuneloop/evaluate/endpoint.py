"""Answers from a server: asked in chunks, each kept as it comes, so that a server that dies half-way costs a chunk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.console import progress
from tuneloop.errors import PartialError, PrerequisiteError
from tuneloop.evaluate.prompting import THINK
from tuneloop.evaluate.split import Split
from tuneloop.evaluate.thinking import vote
from tuneloop.evaluate.written import Answer, Writer, normal
from tuneloop.lm import LM
from tuneloop.records import Example
from tuneloop.store import append_jsonl, read_jsonl, sha256_text

CHUNK = 16
MARK = "Answer:"


def endpoint_writer(split: Split, lm: LM, journal: Path) -> Writer:
    """Writes with `lm`; what stands in `journal` is not asked again. PartialError 430 when the server stops."""

    def write(examples: Sequence[Example], room: int) -> list[Answer]:
        prompting = split.prompting
        room = room + split.config.thought_tokens if prompting.thinks else room
        asks = [_messages(split, e) for e in examples for _ in range(prompting.samples)]
        keys = [sha256_text(json.dumps([m, room, i % prompting.samples]))[:32] for i, m in enumerate(asks)]
        texts = _asked(lm, asks, keys, room, journal)
        found = []
        for i, e in enumerate(examples):
            said = texts[i * prompting.samples : (i + 1) * prompting.samples]
            answers = [_behind_mark(t) if prompting.thinks else t.strip() for t in said]
            prompt = "\n".join(f"{m['role']}: {m['content']}" for m in _messages(split, e))
            best = answers[vote(answers, normal(split))]
            found.append(Answer(best, prompt, samples=said if prompting.thinks else []))
        return found

    return write


def _messages(split: Split, example: Example) -> list[dict[str, Any]]:
    shown = split.shown(example)
    messages = [dict(m) for m in (shown.messages or [])[:-1]] or [{"role": "user", "content": shown.prompt or ""}]
    messages = [{k: v for k, v in m.items() if k != "weight"} for m in messages]
    if split.prompting.thinks:
        last = messages[-1]
        last["content"] = f"{last['content']}\n\n{THINK} End with a line '{MARK} ...'."
    return messages


def _behind_mark(text: str) -> str:
    """What follows the last mark, on its line; the last line where the mark is missing."""
    tail = text.rpartition(MARK)[2].strip() if MARK in text else text.strip()
    lines = tail.splitlines()
    return (lines[0] if MARK in text else lines[-1]).strip() if lines else ""


def _asked(lm: LM, asks: list[Any], keys: list[str], room: int, journal: Path) -> list[str]:
    known = {line["key"]: line["text"] for line in read_jsonl(journal)} if journal.is_file() else {}
    missing = [i for i, key in enumerate(keys) if key not in known]
    with progress("asking the server", len(missing)) as bar:
        for at in range(0, len(missing), CHUNK):
            chunk = missing[at : at + CHUNK]
            try:
                texts = lm.complete([asks[i] for i in chunk], max_new_tokens=room)
            except PrerequisiteError as error:
                if not known:
                    raise
                raise PartialError(
                    430, f"the server stopped after {len(known):,} of {len(keys):,} answers: {error.what}",
                    where=error.where, expected="an answer to every row; those that came are kept",
                    cure="mend the server and run the same command again: it goes on where it stopped",
                ) from error  # fmt: skip
            for i, text in zip(chunk, texts, strict=True):
                append_jsonl(journal, {"key": keys[i], "text": text})
                known[keys[i]] = text
            bar.advance(len(chunk))
    return [known[key] for key in keys]
