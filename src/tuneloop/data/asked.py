"""What is asked and what is answered in an example, as plain text: for keys, profiles and filters."""

from __future__ import annotations

from typing import Any

from tuneloop.records import Example
from tuneloop.text import bare


def asked_and_answered(example: Example) -> tuple[str, str]:
    """Plain text is asked and answers nothing; a pair answers with both sides."""
    if example.chosen is not None:
        asked = _spoken(example.messages) if example.messages is not None else example.prompt or ""
        return asked, "\n\n".join(_spoken(side) for side in (example.chosen, example.rejected))
    if example.messages is not None:
        return _spoken(example.messages[:-1]), str(example.messages[-1]["content"]) or _calls(example.messages[-1])
    if example.text is not None:
        return example.text, ""
    return example.prompt or "", example.completion or ""


def _spoken(turns: list[dict[str, Any]] | str | None) -> str:
    """One turn as its words, several with their roles."""
    if isinstance(turns, list):
        if len(turns) == 1:
            return str(turns[0]["content"]) or _calls(turns[0])
        return "\n".join(f"{m['role']}: {m['content'] or _calls(m)}" for m in turns)
    return turns or ""


def _calls(turn: dict[str, Any]) -> str:
    return str(turn["tool_calls"]) if turn.get("tool_calls") else ""


def core(example: Example, asked: str) -> str:
    """What rows are compared by: without the system turn that many share, and without 'Question:' and 'Answer:'."""
    if example.messages is None:
        return bare(asked)
    before = example.messages if example.chosen is not None else example.messages[:-1]
    said = [str(m["content"]) for m in before if m["role"] not in ("system", "developer")]
    return bare("\n".join(said) or asked)


def everything(example: Example, asked: str, answer: str) -> str:
    """All words of the example, for overlaps with benchmarks."""
    return f"{bare(asked)}\n{answer}"
