"""Rows that `tuneloop generate` wrote, or an earlier `tuneloop data`: the fields of `Example`, lineage included."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuneloop.data import turns
from tuneloop.data.rows import Refused, shallow
from tuneloop.records import KINDS, Example, decode

# `kind`, `parents` and `generator` together are what no other format has.
MARKS = ("kind", "parents", "generator")
CARRIED = (
    "messages", "text", "prompt", "completion", "label", "chosen", "rejected", "desirable", "tools", "meta", "scores",
    "weight", "flags",
)  # fmt: skip


def build(row: dict[str, Any]) -> Example:
    """The example as it was made; its place and id are set by the reader, as for any other row."""
    kind, parents, generator = (row[name] for name in MARKS)
    if kind not in KINDS:
        raise Refused("wrong_type", field="kind", value=kind, cure="one of " + ", ".join(KINDS))
    if not isinstance(generator, dict):
        raise Refused("wrong_type", field="generator", value=generator, cure="write an object")
    held = {name: row[name] for name in CARRIED if row.get(name) is not None}
    if not any(held.get(name) for name in ("messages", "text", "prompt")):
        raise Refused("no_prompt", field="messages", cure="fill in messages, prompt or text, or delete the row")
    return _checked(Example(kind=kind, parents=parents, generator=generator, **held))


PREPARED = ("id", "group", "split", "kind", "source")
PREPARED_MORE = (*CARRIED, "parents", "generator")


def prepared(row: dict[str, Any]) -> Example:
    """A row of an earlier data folder, as it stands there."""
    try:
        held = decode({name: value for name, value in row.items() if value is not None})
    except (ValueError, TypeError, RecursionError) as error:
        raise Refused("broken_json", value=str(error), cure="name a folder that `tuneloop data` wrote") from error
    if held.kind not in KINDS or not (held.messages or held.text or held.prompt):
        raise Refused("wrong_type", field="kind", value=held.kind, cure="name a folder that `tuneloop data` wrote")
    held.group, held.split, held.id, held.source = "", "train", "", {}
    return _checked(held)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, kinds)


def _list_of(kind: type) -> Callable[[object], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(one, kind) for one in value)


def _scores(value: object) -> bool:
    return isinstance(value, dict) and all(turns.is_number(one) for one in value.values())


def _generator(value: object) -> bool:
    return isinstance(value, dict) and isinstance(value.get("licence"), str | None)


# What a field must be, in words for the cure. Those in ALWAYS may not be null.
TYPES: dict[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("text", "prompt", "completion", "label"), (_is(str), "a string")),
    **dict.fromkeys(("chosen", "rejected"), (_is(str, list), "a string or a list of turns")),
    **dict.fromkeys(("parents", "flags"), (_list_of(str), "a list of strings")),
    "messages": (_is(list), "a list of turns"),
    "desirable": (_is(bool), "true or false"),
    "tools": (_list_of(dict), "a list of objects"),
    "meta": (_is(dict), "an object"),
    "generator": (_generator, "an object whose licence is a string"),
    "scores": (_scores, "an object of numbers"),
    "weight": (turns.is_number, "a number"),
}
ALWAYS = ("parents", "flags", "meta", "scores", "weight")
# What a row of each kind cannot be without.
NEEDED = {
    "chat": ("messages",),
    "classification": ("messages",),
    "text": ("text",),
    "completion": ("prompt", "completion"),
    "preference": ("chosen", "rejected"),
    "feedback": ("desirable",),
}


def _checked(example: Example) -> Example:
    """Refused where a field is of another type than `Example` says; its turns as those of any other conversation."""
    for name, (fits, words) in TYPES.items():
        value = getattr(example, name)
        if not fits(value) and (value is not None or name in ALWAYS):
            raise Refused("wrong_type", field=name, value=value, cure=f"write {words}")
    for name in NEEDED[example.kind]:
        if getattr(example, name) is None:
            reason = "no_prompt" if name in ("messages", "text", "prompt") else "no_answer"
            raise Refused(reason, field=name, value=example.kind, cure="fill it in or delete the row")
    for name in ("messages", "chosen", "rejected"):
        if isinstance(value := getattr(example, name), list):
            setattr(example, name, [turns.turn(one, number, name) for number, one in enumerate(value)])
    for name in ("meta", "generator", "tools"):
        shallow(getattr(example, name), name)
    _check_ends(example)
    return example


def _check_ends(example: Example) -> None:
    """The last turn is the assistant's; a pair has two sides of one sort."""
    if isinstance(example.chosen, list) != isinstance(example.rejected, list):
        raise Refused("wrong_type", field="rejected", value=example.rejected, cure="write both answers in the same way")
    sides = {"chosen": example.chosen, "rejected": example.rejected}
    ends = sides if example.chosen is not None else {"messages": example.messages}
    for name, held in ends.items():
        if isinstance(held, list) and (not held or held[-1]["role"] != "assistant"):
            raise Refused("no_answer", field=name, value=held, cure="end it with an assistant turn")
