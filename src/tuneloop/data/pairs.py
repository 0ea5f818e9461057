"""Preference pairs (what was asked, the answer that was liked better, the other one) and answers marked good or bad."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from tuneloop.data import turns
from tuneloop.data.rows import Refused
from tuneloop.records import Example

Row = dict[str, Any]
TRUTH = {"true": True, "false": False, "1": True, "0": False}
# How hh-rlhf writes a conversation as one string.
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
SPEAKER_MARK = re.compile(r"\n\n(Human|Assistant):")


def preference(row: Row) -> Example:
    """Answers as strings, turns or lists of turns; the prompt in a column of its own, or as what both answers share."""
    both = [_answer(row[side], side) for side in ("chosen", "rejected")]
    asked = _asked(row)
    if asked is None and isinstance(row.get("prompt"), str):
        asked, both = _prompt_beside(row["prompt"], both)
    chosen, rejected = both
    if isinstance(chosen, str) != isinstance(rejected, str):
        raise Refused("wrong_type", field="rejected", value=rejected, cure="write both answers in the same way")
    if isinstance(chosen, str):
        return _raw(row, asked, chosen, str(rejected))
    assert isinstance(rejected, list)
    shared = 0 if asked else _shared(chosen, rejected)
    before = [*(asked or []), *chosen[:shared]]
    one, two = chosen[shared:], rejected[shared:]
    _check(before, one, two)
    return Example(kind="preference", messages=before, chosen=one, rejected=two)


def _answer(value: object, side: str) -> str | list[Row]:
    if isinstance(value, str) and value.lstrip()[:1] == "[" and turns.looks(value, side):
        value = turns.as_list(value, side)
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        if not value:
            raise Refused("no_answer", field=side, value=value, cure="fill it in or delete the row")
        return [turns.turn(held, number, side) for number, held in enumerate(value)]
    if isinstance(value, str) and value.strip():
        return _spoken(value) if value.startswith("\n\nHuman:") else value
    if value is None or value == "" or isinstance(value, str):
        raise Refused("no_answer", field=side, value=value, cure="fill it in or delete the row")
    raise Refused("wrong_type", field=side, value=value, cure="write a string or a list of turns")


def _spoken(text: str) -> list[Row]:
    """'\\n\\nHuman: hello\\n\\nAssistant: hi' as turns."""
    pieces = SPEAKER_MARK.split(text)[1:]
    said = zip(pieces[::2], pieces[1::2], strict=True)
    return [{"role": SPEAKERS[speaker], "content": words.strip()} for speaker, words in said]


def _asked(row: Row) -> list[Row] | None:
    """The turns before the answers, where a column holds them."""
    system = row.get("system")
    head = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    held = row.get("messages") or row.get("prompt")
    if isinstance(held, str) and held.lstrip()[:1] == "[" and turns.looks(held, "prompt"):
        held = turns.as_list(held, "prompt")
    if isinstance(held, list):
        return [*head, *(turns.turn(one, number, "prompt") for number, one in enumerate(held))]
    question = row.get("question")
    if isinstance(question, str) and question.strip():
        more = row.get("input")
        text = f"{question}\n\n{more}" if isinstance(more, str) and more.strip() else question
        return [*head, {"role": "user", "content": text}]
    return None


def _prompt_beside(prompt: str, both: list[str | list[Row]]) -> tuple[list[Row] | None, list[str | list[Row]]]:
    """A prompt as a string beside answers as turns is a user turn, unless the turns begin with one themselves."""
    turned = all(isinstance(answer, list) and answer[0]["role"] == "assistant" for answer in both)
    return ([{"role": "user", "content": prompt}] if turned and prompt.strip() else None), both


def _raw(row: Row, asked: list[Row] | None, chosen: str, rejected: str) -> Example:
    if chosen == rejected:
        raise Refused("same_answers", field="chosen", value=chosen, cure="delete the row: it prefers nothing")
    if asked:
        one, two = ([{"role": "assistant", "content": text}] for text in (chosen, rejected))
        _check(asked, one, two)
        return Example(kind="preference", messages=asked, chosen=one, rejected=two)
    prompt = row.get("prompt")
    if not isinstance(prompt, str) or not prompt.strip():
        raise Refused("no_prompt", field="prompt", value=prompt, cure="fill it in or delete the row")
    return Example(kind="preference", prompt=prompt, chosen=chosen, rejected=rejected)


def _shared(chosen: list[Row], rejected: list[Row]) -> int:
    """How many turns both conversations begin with."""
    count = 0
    for one, two in zip(chosen, rejected, strict=False):
        if one != two:
            break
        count += 1
    return count


def _check(before: list[Row], chosen: list[Row], rejected: list[Row]) -> None:
    if not chosen and not rejected:
        raise Refused("same_answers", field="chosen", value=before, cure="delete the row: it prefers nothing")
    if chosen == rejected:
        raise Refused("same_answers", field="chosen", value=chosen, cure="delete the row: it prefers nothing")
    if not before or before[-1]["role"] not in ("user", "tool"):
        roles = ", ".join(turn["role"] for turn in before)
        raise Refused("no_prompt", field="prompt", value=roles, cure="both answers must follow the same user turn")
    for side, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer or answer[0]["role"] != "assistant" or answer[-1]["role"] != "assistant":
            roles = ", ".join(turn["role"] for turn in answer)
            raise Refused("bad_turns", field=side, value=roles, cure="begin and end it with an assistant turn")


def truth(value: object) -> bool | None:
    """True or False as files write it, None for anything else (a class name, say)."""
    return TRUTH.get(str(value).strip().lower().removesuffix(".0")) if value is not None else None


def with_feedback(build: Callable[[Row], Example]) -> Callable[[Row], Example]:
    """`build` for rows whose `label` may say whether the answer was a good one."""

    def built(row: Row) -> Example:
        example = build(row)
        desirable = truth(row.get("label"))
        return example if desirable is None else replace(example, kind="feedback", desirable=desirable)

    return built
