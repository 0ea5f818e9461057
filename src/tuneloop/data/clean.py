"""Light cleaning that changes no meaning: broken encodings, line ends, control characters, blank ends of turns."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache
from typing import Any

from tuneloop.records import Example

CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\ufeff]")


@cache
def _settings() -> Any:
    from ftfy import TextFixerConfig

    # Quotes, ligatures, widths and entities are the author's; only damage is mended.
    return TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=False,
        fix_latin_ligatures=False,
        fix_character_width=False,
        normalization="NFC",
        explain=False,
    )


def fix(text: str, counts: Counter[str]) -> str:
    """One string. `counts` gets one for each kind of repair that changed it."""
    out = text
    if "\r" in out:
        out = out.replace("\r\n", "\n").replace("\r", "\n")
        counts["line_ends"] += 1
    if CONTROL.search(out):
        out = CONTROL.sub("", out)
        counts["control_characters"] += 1
    if not out.isascii():
        import ftfy

        mended = ftfy.fix_text(out, _settings())
        counts["encoding"] += mended != out
        out = mended
    return out


def trim(text: str, counts: Counter[str]) -> str:
    """Without blank lines before and white space after; the indentation of the first line stays."""
    out = re.sub(r"\A(?:[ \t]*\n)+", "", text).rstrip()
    counts["blank_ends"] += out != text
    return out


def clean(example: Example, counts: Counter[str]) -> Example:
    """In place. Raw prompts and completions keep their ends, where a blank is part of the tokens."""
    before = sum(counts.values())
    sides = [side for side in (example.chosen, example.rejected) if isinstance(side, list)]
    for message in [*(example.messages or []), *(turn for side in sides for turn in side)]:
        message["content"] = trim(fix(message["content"], counts), counts)
    for name in ("chosen", "rejected"):
        if isinstance(text := getattr(example, name), str):
            setattr(example, name, fix(text, counts))
    if example.text is not None:
        example.text = trim(fix(example.text, counts), counts)
    if example.prompt is not None:
        example.prompt = fix(example.prompt, counts)
    if example.completion is not None:
        example.completion = fix(example.completion, counts)
    if example.label is not None:
        example.label = (example.messages or [{"content": example.label}])[-1]["content"]
    counts["rows_changed"] += sum(counts.values()) != before
    return example
