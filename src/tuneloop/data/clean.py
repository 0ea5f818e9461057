"""Mends damage that no author meant: encodings, line ends, control characters, blank ends. More only when asked.

Every repair is counted by kind, and cleaning what is clean changes nothing.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from tuneloop.config.data import CleanConfig
from tuneloop.data import personal
from tuneloop.data.rows import Refused
from tuneloop.records import Example

# Zero-width joiners (U+200C, U+200D) shape Persian, Hindi and emoji, and stay.
CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x84\x86-\x9f\u200b\ufeff]")
FENCE = re.compile(r"(^```.*?(?:^```|\Z))", re.DOTALL | re.MULTILINE)
TAG = re.compile(
    r"</?(?:a|abbr|b|blockquote|body|br|center|cite|code|dd|div|dl|dt|em|font|footer|h[1-6]|head|header|hr|html|i|img"
    r"|li|link|meta|nav|ol|p|pre|s|section|small|span|strike|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|u|ul)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE,
)
BREAK = re.compile(r"<(?:br\s*/?|/p|/div|/li|/tr|/h[1-6])>", re.IGNORECASE)
DROPPED = re.compile(r"<(script|style)\b[^<>]*>.*?</\1>|<!--.*?-->", re.IGNORECASE | re.DOTALL)
BLANK_START = re.compile(r"\A(?:[ \t]*\n)+")
MOST_ROUNDS = 8


@lru_cache(maxsize=4)
def _settings(quotes: bool, widths: bool) -> Any:
    from ftfy import TextFixerConfig

    return TextFixerConfig(
        unescape_html=False,
        uncurl_quotes=quotes,
        fix_latin_ligatures=quotes,
        fix_character_width=widths,
        fix_line_breaks=False,
        remove_control_chars=False,
        remove_terminal_escapes=False,
        normalization="NFC",
        explain=False,
    )


def fix(text: str, counts: Counter[str], config: CleanConfig) -> str:
    """One string. `counts` gets one for each kind of repair that changed it.

    Repeated until nothing changes, since one repair can lay open the next: cleaning what is clean does nothing.
    """
    if not text.isascii():
        text.encode()  # half of a surrogate pair is no damage that can be mended: UnicodeEncodeError
    kinds: set[str] = set()
    for _ in range(MOST_ROUNDS):
        before, text = text, _once(text, kinds, config)
        if text == before:
            break
    counts.update(kinds)
    return personal.mask(text, counts) if config.personal_data else text


def _once(text: str, kinds: set[str], config: CleanConfig) -> str:
    out = text
    if "\r" in out:
        out = _step(out, lambda t: t.replace("\r\n", "\n").replace("\r", "\n"), "line_ends", kinds)
    if not out.isascii():
        out = _step(out, lambda t: _encoding(t, config), "encoding", kinds)
    if CONTROL.search(out):
        out = _step(out, lambda t: _outside_code(t, lambda part: CONTROL.sub("", part)), "control_characters", kinds)
    if config.entities and "&" in out:
        out = _step(out, html.unescape, "entities", kinds)
    if config.html and "<" in out:
        out = _step(out, lambda t: _outside_code(t, _without_tags), "html", kinds)
    return out


def _step(text: str, change: Callable[[str], str], name: str, kinds: set[str]) -> str:
    out = change(text)
    if out != text:
        kinds.add(name)
    return out


def _encoding(text: str, config: CleanConfig) -> str:
    import ftfy

    return str(ftfy.fix_text(text, _settings(config.quotes, config.widths)))


def _outside_code(text: str, change: Callable[[str], str]) -> str:
    if "```" not in text:
        return change(text)
    return "".join(part if part.startswith("```") else change(part) for part in FENCE.split(text))


def _without_tags(text: str) -> str:
    return TAG.sub("", BREAK.sub("\n", DROPPED.sub("", text)))


def trim(text: str, counts: Counter[str]) -> str:
    """Without blank lines before and white space after; the indentation of the first line stays."""
    out = BLANK_START.sub("", text).rstrip()
    counts["blank_ends"] += out != text
    return out


def turns_of(example: Example) -> Iterator[dict[str, Any]]:
    """Every message, those of both answers of a pair included."""
    sides = [side for side in (example.chosen, example.rejected) if isinstance(side, list)]
    yield from example.messages or []
    for side in sides:
        yield from side


# Raw prompts and completions keep their ends, where a blank is part of the tokens.
RAW_FIELDS = ("text", "prompt", "completion", "chosen", "rejected")


def clean(example: Example, counts: Counter[str], config: CleanConfig) -> Example:
    """In place."""
    before = sum(counts.values())
    for message in turns_of(example):
        message["content"] = trim(fix(message["content"], counts, config), counts)
    for name in RAW_FIELDS:
        if isinstance(text := getattr(example, name), str):
            mended = fix(text, counts, config)
            setattr(example, name, trim(mended, counts) if name == "text" else mended)
    if example.label is not None:
        example.label = (example.messages or [{"content": example.label}])[-1]["content"]
    counts["rows_changed"] += sum(counts.values()) != before
    return example


EMPTY = {
    "text": "no_text", "prompt": "no_prompt", "completion": "no_answer", "label": "no_answer", "chosen": "no_answer",
    "rejected": "no_answer",
}  # fmt: skip


def check_whole(example: Example) -> None:
    """Raises Refused where cleaning left nothing to ask or to answer, or made both answers of a pair equal."""
    for name in ("messages", "chosen", "rejected"):
        held = getattr(example, name)
        for number, turn in enumerate(held if isinstance(held, list) else ()):
            if not turn["content"].strip() and not turn.get("tool_calls"):
                reason = "no_answer" if turn["role"] == "assistant" else "no_prompt"
                raise Refused(reason, field=f"{name}[{number}].content", cure="fill it in or delete the row")
    for name, reason in EMPTY.items():
        if isinstance(text := getattr(example, name), str) and not text.strip():
            raise Refused(reason, field=name, cure="fill it in or delete the row")
    if example.chosen is not None and example.chosen == example.rejected:
        cure = "delete the row: it prefers nothing"
        raise Refused("same_answers", field="chosen", value=example.chosen, cure=cure)
