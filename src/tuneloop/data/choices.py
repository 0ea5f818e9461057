"""Multiple choice rows (the schemas of ARC, HellaSwag and MMLU) as a question and its right option."""

from __future__ import annotations

import json
import random
import re
from dataclasses import replace
from typing import Any

from tuneloop.data.rows import Refused
from tuneloop.records import Example

Row = dict[str, Any]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _structure(value: object) -> object:
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


def looks(row: Row) -> bool:
    value = _structure(row.get("choices"))
    return isinstance(value, list) or (isinstance(value, dict) and isinstance(value.get("text"), list))


def build(row: Row) -> Example:
    """As ARC and MMLU are laid out: the question, then the right option after a blank; options stay in `meta`."""
    return _example(row, "Question: {}\nAnswer:")


def ending(row: Row) -> Example:
    """A context and its right ending after a blank, as HellaSwag is scored."""
    return _example(row, "{}")


def _example(row: Row, layout: str) -> Example:
    question = row["question"]
    if not isinstance(question, str) or not question.strip():
        raise Refused("no_prompt", field="question", value=question, cure="fill it in or delete the row")
    value = _structure(row["choices"])
    labels: list[str] = []
    if isinstance(value, dict):
        named = value.get("label") or []
        if not isinstance(named, list):
            raise Refused("wrong_type", field="choices.label", value=named, cure="write a list of names")
        labels = [str(label) for label in named]
        value = value.get("text")
    if not isinstance(value, list) or len(value) < 2 or not all(isinstance(v, str | int | float) for v in value):
        raise Refused("wrong_type", field="choices", value=value, cure="write a list of at least two options")
    options = [str(option) for option in value]
    gold = _gold(row.get("answer"), labels, options)
    if not options[gold].strip():
        raise Refused("no_answer", field="choices", value=options, cure="the right option is empty")
    return Example(
        kind="completion",
        prompt=layout.replace("{}", question.strip()),
        completion=f" {options[gold].strip()}",
        meta={"options": options, "gold": gold},
    )


def _gold(answer: object, labels: list[str], options: list[str]) -> int:
    """Index of the right option: by the row's own labels, else a number from 0, a letter, or the option's text."""
    text = "" if answer is None else str(answer).strip()
    if not text:
        raise Refused("no_answer", field="answer", value=answer, cure="fill it in or delete the row")
    names = labels if len(labels) == len(options) else [str(i) for i in range(len(options))]
    if text.endswith(".0") and isinstance(answer, float):
        text = text[:-2]
    for known in (names, list(LETTERS[: len(options)]), options):
        if text in known:
            return known.index(text)
    raise Refused("no_answer", field="answer", value=answer, cure=f"one of {', '.join(names)}")


LETTERED = re.compile(r"^([A-Z])[.)] (.*)$", re.MULTILINE)


def reordered(example: Example, rng: random.Random) -> tuple[Example, dict[str, Any]] | None:
    """A multiple choice row whose lettered options stand in another order; None where there are none, or no letter.

    Rows whose prompt does not list the options ask for the text of the right one, and have no order to change.
    """
    prompt = (
        example.prompt if example.prompt is not None else str((example.messages or [{"content": ""}])[0]["content"])
    )
    answer = (
        example.completion
        if example.prompt is not None
        else str((example.messages or [{"content": ""}])[-1]["content"])
    )
    found = list(LETTERED.finditer(prompt))
    letters = [one[1] for one in found]
    named = re.match(r"\s*\(?([A-Z])\b", answer or "")
    if len(found) < 2 or letters != list(LETTERS[: len(found)]) or named is None or named[1] not in letters:
        return None
    order = list(range(len(found)))
    while order == sorted(order):
        rng.shuffle(order)
    out, at = [], 0
    for place, one in enumerate(found):
        out += [prompt[at : one.start(2)], found[order[place]][2]]
        at = one.end(2)
    text = "".join([*out, prompt[at:]])
    right = LETTERS[order.index(letters.index(named[1]))]
    fresh = f"{(answer or '')[: named.start(1)]}{right}{(answer or '')[named.end(1) :]}"
    how = {"template": "".join(LETTERS[i] for i in order)}
    if example.prompt is not None:
        return replace(example, prompt=text, completion=fresh), how
    messages = [{**(example.messages or [])[0], "content": text}, *(example.messages or [])[1:-1]]
    return replace(example, messages=[*messages, {**(example.messages or [])[-1], "content": fresh}]), how
