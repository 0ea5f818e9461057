"""Conversations: OpenAI messages and ShareGPT turns, checked so that there is something to train on."""

from __future__ import annotations

import json
from typing import Any

from tuneloop.data.rows import Refused
from tuneloop.records import Example

Row = dict[str, Any]
ROLES = {"system", "developer", "user", "assistant", "tool"}
SPEAKERS = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "model": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
}


def as_list(value: object, field: str) -> list[Any]:
    """A list, also where a CSV or Parquet column holds it as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Refused("broken_json", field=field, value=str(value), cure="mend the JSON in this column") from error
    if not isinstance(value, list):
        raise Refused("wrong_type", field=field, value=value, cure="write a list")
    return value


def looks(value: object, name: str) -> bool:
    """Whether a column called 'messages' or 'conversations' holds a list of turns."""
    try:
        held = as_list(value, "")
    except Refused:
        return False
    return all(isinstance(turn, dict) for turn in held) and bool(held or name == "messages")


def messages(row: Row) -> Example:
    return _conversation(as_list(row["messages"], "messages"), row)


def sharegpt(row: Row) -> Example:
    if row.get("chosen"):
        raise Refused("preference_pair", field="chosen", cure="keep the chosen answer as the last turn")
    held = as_list(row["conversations"], "conversations")
    system = row.get("system")
    head = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return _conversation([*head, *held], row)


def preference(row: Row) -> Example:
    raise Refused("preference_pair", field="chosen", cure="keep prompt and chosen answer as a conversation")


def _conversation(held: list[Any], row: Row) -> Example:
    if row.get("label") in (False, 0, "false", "False"):
        raise Refused(
            "bad_answer",
            field="label",
            value=row["label"],
            cure="answers marked false are not imitated; delete the row",
        )
    if not held:
        raise Refused("bad_turns", field="messages", value=held, cure="write at least a user and an assistant turn")
    found = [_turn(turn, number) for number, turn in enumerate(held)]
    while found and found[-1]["role"] in ("system", "developer"):
        found.pop()
    if not any(turn["role"] == "assistant" for turn in found):
        roles = ", ".join(turn["role"] for turn in found)
        raise Refused("no_answer", field="messages", value=roles, cure="add an assistant turn or delete the row")
    if found[-1]["role"] != "assistant":
        raise Refused(
            "no_answer", field=f"messages[{len(found) - 1}]", value=found[-1]["role"],
            cure="end the conversation with an assistant turn",
        )  # fmt: skip
    if found[0]["role"] == "assistant":
        raise Refused("no_prompt", field="messages[0]", value="assistant", cure="begin with a user or system turn")
    return Example(messages=found)


def _turn(turn: object, number: int) -> Row:
    place = f"messages[{number}]"
    if not isinstance(turn, dict):
        raise Refused("wrong_type", field=place, value=turn, cure='write {"role": ..., "content": ...}')
    speaker = turn.get("role", turn.get("from"))
    role = str(speaker) if speaker in ROLES else SPEAKERS.get(str(speaker).lower())
    if role is None:
        cure = "one of " + ", ".join(sorted(ROLES | set(SPEAKERS)))
        raise Refused("bad_turns", field=f"{place}.role", value=speaker, cure=cure)
    content = _content(turn.get("content", turn.get("value")), place)
    if not content.strip() and not turn.get("tool_calls"):
        reason = "no_answer" if role == "assistant" else "no_prompt"
        raise Refused(reason, field=f"{place}.content", value=content, cure="fill it in or delete the row")
    kept = {name: turn[name] for name in ("name", "tool_calls", "tool_call_id", "weight") if turn.get(name) is not None}
    return {"role": role, "content": content, **kept}


def _content(value: object, place: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool | int | float):
        return str(value)
    if isinstance(value, list) and all(isinstance(p, dict) and p.get("type") == "text" for p in value):
        return "".join(str(part.get("text") or "") for part in value)
    raise Refused("wrong_type", field=f"{place}.content", value=value, cure="only text is read: write one string")
