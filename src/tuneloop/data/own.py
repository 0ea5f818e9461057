"""Rows that `tuneloop generate` wrote: the fields of `Example` as JSON, lineage included."""

from __future__ import annotations

from typing import Any

from tuneloop.data.rows import Refused
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
    if not isinstance(parents, list) or not all(isinstance(name, str) for name in parents):
        raise Refused("wrong_type", field="parents", value=parents, cure="write a list of ids")
    if not isinstance(generator, dict):
        raise Refused("wrong_type", field="generator", value=generator, cure="write an object")
    held = {name: row[name] for name in CARRIED if row.get(name) is not None}
    if not any(held.get(name) for name in ("messages", "text", "prompt")):
        raise Refused("no_prompt", field="messages", cure="fill in messages, prompt or text, or delete the row")
    return Example(kind=kind, parents=parents, generator=generator, **held)


PREPARED = ("id", "group", "split", "kind", "source")
PREPARED_MORE = (*CARRIED, "parents", "generator")


def prepared(row: dict[str, Any]) -> Example:
    """A row of an earlier data folder, as it stands there."""
    try:
        held = decode({name: value for name, value in row.items() if value is not None})
    except (ValueError, TypeError) as error:
        raise Refused("broken_json", value=str(error), cure="name a folder that `tuneloop data` wrote") from error
    if held.kind not in KINDS or not (held.messages or held.text or held.prompt):
        raise Refused("wrong_type", field="kind", value=held.kind, cure="name a folder that `tuneloop data` wrote")
    held.group, held.split, held.id, held.source = "", "train", "", {}
    return held
