"""Where an assistant's words stand in one full rendering of a conversation.

Prefix differences fail (Qwen3 adds a thinking block to the last answer only), so every answer is replaced by a mark,
the conversation rendered once with marks, and the marks filled in again: the result must be the real rendering to the
letter, or the template is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tuneloop.errors import DataError

Message = dict[str, Any]
Tools = list[dict[str, Any]] | None
Span = tuple[int, int]
MARK = re.compile("\ue000[0-9]+[ta]\ue001")
# What a template's own code may raise over a row: the row is refused, not the run.
REFUSALS = (ArithmeticError, LookupError, RecursionError, TypeError, ValueError)
# Templates may trim what they are given; these are the trimmings that are recognised.
TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.rstrip, str.lstrip)


def render(tokenizer: Any, messages: list[Message], *, tools: Tools = None, generate: bool = False) -> str:
    """The conversation as text, through the sandboxed Jinja of Transformers."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tools=tools, tokenize=False, add_generation_prompt=generate))
    except (TemplateError, *REFUSALS) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> DataError:
    return DataError(
        340, f"the chat template refuses this conversation: {error}", expected="roles in the order it wants"
    )


def assistant_spans(tokenizer: Any, messages: list[Message], tools: Tools = None) -> tuple[str, list[Span]]:
    """The rendering and, for each assistant message, the characters to train: thinking, words, calls, end of turn.

    Raises DataError 341 when the spans cannot be proven, 342 when an answer is not text.
    """
    marked_messages, fills, last = _mark(messages, thinking="</think>" in str(tokenizer.chat_template))
    real = render(tokenizer, messages, tools=tools)
    pieces, order = _split(render(tokenizer, marked_messages, tools=tools), last)
    trim = _proven_trim(pieces, [fills[mark] for mark in order], real)
    cue, lead = _cue(tokenizer, messages) if order else ("", "")
    calls = {mark for mark, m in zip(last, _answers(messages), strict=True) if m.get("tool_calls")}
    spans, position, start = [], 0, -1
    for number, mark in enumerate(order):
        words = position + len(pieces[number])
        if start < 0 and mark in calls and not cue:
            start = _end_of_prompt(tokenizer, messages[: _index(mark)], tools, real)
        elif start < 0:
            start = words - _after_cue(pieces[number], cue, lead)
        position = words + len(trim(fills[mark]))
        if mark in last:
            skipped = _calls_length(tokenizer, pieces[number + 1]) if mark in calls else 0
            spans.append((start, position + skipped + _end_of_turn(tokenizer, pieces[number + 1][skipped:])))
            start = -1
    return real, spans


def check_whole(tokenizer: Any, messages: list[Message], tools: Tools = None) -> None:
    """Raises DataError 344 where the template leaves out a message, a tool call or a tool.

    Some templates show a system prompt only while they ask for an answer (Mistral v0.3), others know no tools: what
    was trained without them would be asked with them. Marks stand for the texts, so that none can pass for another.
    """
    marks: dict[str, str] = {}

    def mark(what: str) -> str:
        name = f"\ue000{len(marks)}w\ue001"
        marks[name] = what
        return name

    marked = []
    for number, message in enumerate(messages):
        changed, content = dict(message), message.get("content")
        if message["role"] != "assistant" and isinstance(content, str) and content.strip():
            changed["content"] = mark(f"message {number} ({message['role']})")
        if message.get("tool_calls"):
            changed["tool_calls"] = [
                _named(call, mark(f"a tool call of message {number}")) for call in message["tool_calls"]
            ]
        marked.append(changed)
    shown = [_named(tool, mark(f"the tool {_function(tool).get('name')}")) for tool in tools or []]
    text = render(tokenizer, marked, tools=shown or None)
    for name, what in marks.items():
        if name not in text:
            raise _left_out(what)


def _named(call: dict[str, Any], name: str) -> dict[str, Any]:
    """The call or tool under another name."""
    inner = {**_function(call), "name": name}
    return {**call, "function": inner} if "function" in call else inner


def _left_out(what: str) -> DataError:
    return DataError(
        344,
        f"the chat template leaves out {what}",
        where="chat template",
        expected="a template that shows all that the row holds",
        cure="write a system prompt into the first user turn, or train with a template that has a place for it",
    )


def _function(call: dict[str, Any]) -> dict[str, Any]:
    found = call.get("function", call)
    return found if isinstance(found, dict) else {}


def _answers(messages: list[Message]) -> list[Message]:
    return [message for message in messages if message["role"] == "assistant"]


def _mark(messages: list[Message], *, thinking: bool) -> tuple[list[Message], dict[str, str], list[str]]:
    """The messages with marks for answers, what each mark stands for, and the mark that closes each answer.

    Where the template knows thinking blocks, the thoughts of an answer get a mark of their own: such templates cut
    the answer apart there and drop the thoughts of all but the last turn.
    """
    marked, fills, last = [], {}, []
    for i, message in enumerate(messages):
        if message["role"] != "assistant":
            marked.append(message)
            continue
        content = message.get("content")
        calls = message.get("tool_calls")
        if calls and not content:
            # Nothing but calls: the mark stands for the name of the first.
            first = _named(calls[0], f"\ue000{i}a\ue001")
            fills[f"\ue000{i}a\ue001"] = str(_function(calls[0]).get("name", ""))
            marked.append({**message, "tool_calls": [first, *calls[1:]]})
            last.append(f"\ue000{i}a\ue001")
            continue
        if not isinstance(content, str):
            raise DataError(342, f"the answer in message {i} is not text", where="messages", expected="a string")
        thoughts, answer = f"\ue000{i}t\ue001", f"\ue000{i}a\ue001"
        fills[answer] = content
        text = answer
        if thinking and "</think>" in content:
            fills[thoughts] = content.split("</think>")[0].rstrip("\n").split("<think>")[-1].strip("\n")
            fills[answer] = content.split("</think>")[-1].lstrip("\n")
            text = f"<think>\n{thoughts}\n</think>\n\n{answer}"
        marked.append({**message, "content": text})
        last.append(answer)
    return marked, fills, last


def _split(text: str, answers: list[str]) -> tuple[list[str], list[str]]:
    """What stands around the marks, and the marks in their order; each answer once, thoughts only before theirs."""
    found = MARK.findall(text)
    thoughts = {mark[:-2] + "t\ue001": mark for mark in answers}
    in_place = all(m not in thoughts or found[i + 1 : i + 2] == [thoughts[m]] for i, m in enumerate(found))
    if [m for m in found if m not in thoughts] != answers or not in_place:
        raise _unproven("an answer is missing from the rendering, or stands there twice")
    return MARK.split(text), found


def _proven_trim(pieces: list[str], contents: list[str], real: str) -> Callable[[str], str]:
    for trim in TRIMS:
        filled = "".join(piece + trim(content) for piece, content in zip(pieces, contents, strict=False))
        if filled + pieces[-1] == real:
            return trim
    raise _unproven("the template changes the words of an answer")


def _unproven(why: str) -> DataError:
    return DataError(
        341,
        f"cannot prove which tokens are the assistant's: {why}",
        where="chat template",
        expected="a template with {% generation %} tags, or one that copies each answer once and unchanged",
        cure="--set model.template=plain or chatml, or add the tags",
    )


def _cue(tokenizer: Any, messages: list[Message]) -> tuple[str, str]:
    """What the template writes to ask for an answer (may be empty), and what it writes then before the words."""
    ask = [m for m in messages if m["role"] == "user"][-1:] or [{"role": "user", "content": "x"}]
    without, with_cue = render(tokenizer, ask), render(tokenizer, ask, generate=True)
    cue = with_cue[len(without) :] if with_cue.startswith(without) else ""
    if cue:
        return cue, ""
    mark = "\ue000a\ue001"
    answered = render(tokenizer, [*ask, {"role": "assistant", "content": mark}])
    return "", answered[len(with_cue) : answered.find(mark)] if answered.startswith(with_cue) else ""


def _after_cue(before: str, cue: str, lead: str) -> int:
    """Characters that the model has to write itself before the words: a thinking block, a blank."""
    if not cue:
        return len(lead) if before.endswith(lead) else 0
    at = before.rfind(cue)
    if at < 0:
        raise _unproven("the cue for an answer does not stand before it")
    return len(before) - at - len(cue)


def _index(mark: str) -> int:
    return int(mark[1:-2])


def _end_of_prompt(tokenizer: Any, before: list[Message], tools: Tools, real: str) -> int:
    """Where the model begins to write after these messages."""
    prompt = render(tokenizer, before, tools=tools, generate=True)
    if not real.startswith(prompt):
        raise _unproven("what is asked with is not what was trained")
    return len(prompt)


def _calls_length(tokenizer: Any, after: str) -> int:
    """Characters of tool calls between the words of an answer (or the first call's name) and the end of its turn."""
    mark = "\ue000a\ue001"
    plain = render(tokenizer, [{"role": "user", "content": "x"}, {"role": "assistant", "content": mark}])
    tail = plain[plain.find(mark) + len(mark) :]
    end = tail[: _end_of_turn(tokenizer, tail)].strip()
    at = after.find(end)
    if at < 0:
        raise _unproven("no end of turn follows the tool calls")
    return at


def _end_of_turn(tokenizer: Any, after: str) -> int:
    """Length of the end-of-turn token that follows an answer, with the blanks before it.

    The line break after that token is not trained: nothing is sampled behind an end of turn. The one exception are
    templates with thinking blocks (Qwen3), whose published training template (TRL) counts it; we give the same mask.
    """
    blanks = len(after) - len(after.lstrip(" "))
    special = [str(t) for t in tokenizer.get_added_vocab()] + [tokenizer.eos_token or ""]
    ends = [t for t in special if t and after[blanks:].startswith(t)]
    if not ends:
        raise _unproven("no end-of-turn token follows an answer, so the model would never learn to stop")
    length = blanks + len(max(ends, key=len))
    thinking = "</think>" in str(tokenizer.chat_template) and after[blanks:].startswith("<|im_end|>\n")
    return length + 1 if thinking else length


def tagged_spans(tokenizer: Any, messages: list[Message], tools: Tools = None) -> tuple[str, list[Span]]:
    """The rendering and the spans that the template's own `{% generation %}` tags name, one an assistant message."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered: Any = render_jinja_template(
            conversations=[messages],
            tools=list(tools) if tools else None,
            chat_template=tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, *REFUSALS) as error:
        raise _refused(error) from error
    texts, found = rendered
    spans = [(int(a), int(b)) for a, b in found[0]]
    answers = sum(m["role"] == "assistant" for m in messages)
    if len(spans) != answers or texts[0] != render(tokenizer, messages, tools=tools):
        raise _unproven(f"{answers} answers, but {len(spans)} spans in generation tags")
    return str(texts[0]), spans
