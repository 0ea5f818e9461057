"""Conversations: OpenAI messages and ShareGPT turns, checked so that there is something to train on."""

from __future__ import annotations

import json
import sys
from typing import Any

from tuneloop.data.rows import Refused, shallow
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
    "function_call": "assistant",
}


def as_list(value: object, field: str) -> list[Any]:
    """A list, also where a CSV or Parquet column holds it as JSON text."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
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
    return all(isinstance(one, dict) for one in held) and bool(held or name == "messages")


def messages(row: Row) -> Example:
    return _with_tools(_conversation(as_list(row["messages"], "messages")), row)


def sharegpt(row: Row) -> Example:
    held = as_list(row["conversations"], "conversations")
    system = row.get("system")
    head = [{"role": "system", "content": system}] if isinstance(system, str) and system.strip() else []
    return _with_tools(_conversation([*head, *held]), row)


def _with_tools(example: Example, row: Row) -> Example:
    """Fills `tools` from a column that holds a list, or one as JSON text."""
    value = row.get("tools")
    if value is None or value in ("", [], "[]"):
        return example
    held = as_list(value, "tools")
    if not all(isinstance(one, dict) for one in held):
        raise Refused("wrong_type", field="tools", value=value, cure="write a list of objects")
    shallow(held, "tools")
    example.tools = held
    return example


def _conversation(held: list[Any]) -> Example:
    if not held:
        raise Refused("bad_turns", field="messages", value=held, cure="write at least a user and an assistant turn")
    found = [turn(value, number) for number, value in enumerate(held)]
    while found and found[-1]["role"] in ("system", "developer"):
        found.pop()
    if not any(t["role"] == "assistant" for t in found):
        roles = ", ".join(t["role"] for t in found)
        raise Refused("no_answer", field="messages", value=roles, cure="add an assistant turn or delete the row")
    if found[-1]["role"] != "assistant":
        raise Refused(
            "no_answer", field=f"messages[{len(found) - 1}]", value=found[-1]["role"],
            cure="end the conversation with an assistant turn",
        )  # fmt: skip
    if found[0]["role"] == "assistant":
        raise Refused("no_prompt", field="messages[0]", value="assistant", cure="begin with a user or system turn")
    return Example(messages=found)


def turn(value: object, number: int, field: str = "messages") -> Row:
    """One turn with the role and content that the rest of the package knows; refused where it has none."""
    place = f"{field}[{number}]"
    if not isinstance(value, dict):
        raise Refused("wrong_type", field=place, value=value, cure='write {"role": ..., "content": ...}')
    speaker = value.get("role", value.get("from"))
    role = speaker if isinstance(speaker, str) and speaker in ROLES else SPEAKERS.get(str(speaker).lower())
    if role is None:
        cure = "one of " + ", ".join(sorted(ROLES | set(SPEAKERS)))
        raise Refused("bad_turns", field=f"{place}.role", value=speaker, cure=cure)
    if speaker == "function_call":
        return _function_call(value.get("value"), place)
    content = _content(value.get("content", value.get("value")), place)
    _check_extra(value, place)
    if not content.strip() and not value.get("tool_calls"):
        reason = "no_answer" if role == "assistant" else "no_prompt"
        raise Refused(reason, field=f"{place}.content", value=content, cure="fill it in or delete the row")
    extra = ("name", "tool_calls", "tool_call_id", "weight")
    kept = {name: value[name] for name in extra if value.get(name) is not None}
    return {"role": role, "content": content, **kept}


def _check_extra(turn: Row, place: str) -> None:
    weight, calls = turn.get("weight"), turn.get("tool_calls")
    if weight is not None and not is_number(weight):
        raise Refused("wrong_type", field=f"{place}.weight", value=weight, cure="write a number: 0 or 1")
    if calls is None:
        return
    if not isinstance(calls, list) or not all(_is_call(call) for call in calls):
        cure = 'write a list of {"type": "function", "function": {"name": ..., "arguments": ...}}'
        raise Refused("wrong_type", field=f"{place}.tool_calls", value=calls, cure=cure)
    shallow(calls, f"{place}.tool_calls")


def is_number(value: object) -> bool:
    """A number that a float holds; true and false are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max


def _is_call(call: object) -> bool:
    """{"function": {"name": ...}} as OpenAI writes it, or {"name": ...} alone."""
    function = call.get("function", call) if isinstance(call, dict) else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)


def _function_call(value: object, place: str) -> Row:
    """ShareGPT's `function_call` turn, a JSON object or list of {name, arguments}, as an assistant's tool calls."""
    try:
        held = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise Refused("broken_json", field=f"{place}.value", value=value, cure="mend the JSON of the call") from error
    calls: list[Any] = held if isinstance(held, list) else [held]
    if not calls or not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        raise Refused("wrong_type", field=f"{place}.value", value=value, cure='write {"name": ..., "arguments": ...}')
    shallow(calls, f"{place}.value")
    functions = [{"name": call["name"], "arguments": call.get("arguments", {})} for call in calls]
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"type": "function", "function": one} for one in functions],
    }


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
