"""Why a written answer is wrong. What could not be read is told apart from what was read and is wrong."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from tuneloop.text import words

REFUSAL = re.compile(
    r"\b(?:i (?:can(?:no|')t|am unable|'m unable|won't|do not know|don't know|have no comment)|"
    r"as an ai|i'm sorry|i am sorry|cannot (?:help|assist|answer))\b",
    re.IGNORECASE,
)
NEW_QUESTION = re.compile(r"\n\s*(?:q|question|user|human)\s*[:.]", re.IGNORECASE)
NUMBER = re.compile(r"-?\d+(?:[.,]\d+)*")
REPEATS = 3  # a run of words that stands this often in a row is a loop


def tags(text: str, gold: str, *, room: bool, false: list[str] | None = None) -> list[str]:
    """The causes of one wrong answer, most specific first; empty when only its content is wrong.

    `room` is False where generation stopped at the token limit; `false` holds answers that are known to be wrong.
    """
    if not text.strip():
        return ["empty answer"]
    found = []
    if looping(text):
        found.append("repetition loop")
    if not room:
        found.append("ran to the token limit")
    if NEW_QUESTION.search(text):
        found.append("goes on with a new question")
    if REFUSAL.search(text):
        found.append("refusal")
    if any(answer.strip() and _inside(answer, text) for answer in false or []):
        found.append("repeats a false reference")
    if gold.strip() and _inside(gold, text):
        found.append("answer present, not extracted")
    elif _other_shape(text, gold):
        found.append("wrong format")
    if _script(text) and _script(gold) and _script(text) != _script(gold):
        found.append("language switch")
    return found


def looping(text: str) -> bool:
    """True when one to eight words follow themselves at least three times."""
    tokens = words(text)
    for size in range(1, 9):
        need = max(REPEATS, 5 if size == 1 else REPEATS)
        run = 0
        for start in range(size, len(tokens) - size + 1):
            run = run + 1 if tokens[start : start + size] == tokens[start - size : start] else 0
            # Every shift inside a loop matches too: `need` times the same are (need - 2) * size + 1 matches.
            if run >= (need - 2) * size + 1:
                return True
    return False


def _inside(part: str, text: str) -> bool:
    inner, outer = words(part), words(text)
    return bool(inner) and any(outer[i : i + len(inner)] == inner for i in range(len(outer) - len(inner) + 1))


def _other_shape(text: str, gold: str) -> bool:
    """A number was due and none came, or a single letter was due and a sentence came."""
    if NUMBER.fullmatch(gold.strip()):
        return NUMBER.search(text) is None
    if re.fullmatch(r"\(?[A-Z]\)?", gold.strip()):
        return re.match(r"\s*\(?[A-Z]\)?(?:\W|$)", text) is None
    return False


def _script(text: str) -> str:
    """The writing most of the letters belong to, by the first word of their Unicode names; empty for few letters."""
    counts: dict[str, int] = {}
    for letter in text[:400]:
        if letter.isalpha():
            name = unicodedata.name(letter, "?").split()[0]
            counts[name] = counts.get(name, 0) + 1
    total = sum(counts.values())
    top = max(counts, key=lambda name: counts[name]) if counts else ""
    return top if total >= 8 and counts[top] > 0.6 * total else ""


def of_row(row: dict[str, Any]) -> list[str]:
    """Causes of a wrong free-text row of a scores folder."""
    text = row.get("text_pred")
    if text is None:
        return []
    cut = "token limit" in (row.get("flags") or [])
    return tags(str(text), str(row.get("text_gold") or ""), room=not cut)
