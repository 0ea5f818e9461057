"""A training row in another form: its prompt in another layout, or its lettered options in another order."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from tuneloop.analyze.layout import relaid
from tuneloop.records import Example
from tuneloop.text import share

OPTION = re.compile(r"^(\s*\(?)([A-J])([.):]\s*)(.+)$")
LETTER = re.compile(r"^(\s*\(?)([A-J])(\)?\.?\s*)$")


def laid_out(example: Example, old: str, new: str) -> Example:
    """The row with its last question in the layout `new` where it stood in `old`."""
    return _asking(example, lambda prompt: relaid(prompt, old, new))


def reordered(example: Example, seed: int) -> Example:
    """A lettered row with its right option in a place drawn from its id, and the letter of that place as the answer.

    The option that stood there takes the place of the right one. Rows without lettered options come back as they are.
    """
    said = _said(example)
    letter = LETTER.match(said)
    lines = _prompt(example).split("\n")
    places = [k for k, line in enumerate(lines) if OPTION.match(line)]
    letters = [m[2] for k in places if (m := OPTION.match(lines[k]))]
    if letter is None or len(letters) < 2 or letters != list("ABCDEFGHIJ"[: len(letters)]) or letter[2] not in letters:
        return example
    old, new = letters.index(letter[2]), int(share(example.id, seed) * len(letters))
    first, second = OPTION.match(lines[places[old]]), OPTION.match(lines[places[new]])
    if first is None or second is None or old == new:
        return example
    lines[places[old]] = f"{first[1]}{first[2]}{first[3]}{second[4]}"
    lines[places[new]] = f"{second[1]}{second[2]}{second[3]}{first[4]}"
    turned = _asking(example, lambda _: "\n".join(lines))
    return _saying(turned, f"{letter[1]}{letters[new]}{letter[3]}")


def _prompt(example: Example) -> str:
    if example.messages is None:
        return example.prompt or ""
    return next((str(m.get("content") or "") for m in reversed(example.messages[:-1]) if m.get("role") == "user"), "")


def _said(example: Example) -> str:
    return str(example.messages[-1].get("content") or "") if example.messages else example.completion or ""


def _asking(example: Example, change: Callable[[str], str]) -> Example:
    if example.messages is None:
        return replace(example, prompt=change(example.prompt)) if example.prompt else example
    turns = [dict(m) for m in example.messages]
    for turn in reversed(turns[:-1]):
        if turn.get("role") == "user":
            turn["content"] = change(str(turn.get("content") or ""))
            break
    return replace(example, messages=turns)


def _saying(example: Example, answer: str) -> Example:
    if example.messages is None:
        return replace(example, completion=answer)
    return replace(example, messages=[*example.messages[:-1], {**example.messages[-1], "content": answer}])
