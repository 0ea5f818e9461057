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
Span = tuple[int, int]
MARK = re.compile("\ue000[0-9]+[ta]\ue001")
# Templates may trim what they are given; these are the trimmings that are recognised.
TRIMS: tuple[Callable[[str], str], ...] = (str, str.strip, str.rstrip, str.lstrip)


def render(tokenizer: Any, messages: list[Message], *, generate: bool = False) -> str:
    """The conversation as text, through the sandboxed Jinja of Transformers."""
    from jinja2 import TemplateError

    try:
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=generate))
    except (TemplateError, TypeError) as error:
        raise _refused(error) from error


def _refused(error: Exception) -> DataError:
    return DataError(
        340, f"the chat template refuses this conversation: {error}", expected="roles in the order it wants"
    )


def assistant_spans(tokenizer: Any, messages: list[Message]) -> tuple[str, list[Span]]:
    """The rendering and, for each assistant message, the characters to train: thinking block, words, end of turn.

    Raises DataError 341 when the spans cannot be proven, 342 when an answer is not text.
    """
    marked_messages, fills, last = _mark(messages, thinking="</think>" in str(tokenizer.chat_template))
    real = render(tokenizer, messages)
    pieces, order = _split(render(tokenizer, marked_messages), last)
    trim = _proven_trim(pieces, [fills[mark] for mark in order], real)
    cue = _cue(tokenizer, messages) if order else ""
    spans, position, start = [], 0, -1
    for number, mark in enumerate(order):
        words = position + len(pieces[number])
        if start < 0:
            start = words - _after_cue(pieces[number], cue)
        position = words + len(trim(fills[mark]))
        if mark in last:
            spans.append((start, position + _end_of_turn(tokenizer, pieces[number + 1])))
            start = -1
    return real, spans


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


def _cue(tokenizer: Any, messages: list[Message]) -> str:
    """What the template writes to ask for an answer; empty where it writes nothing."""
    ask = [m for m in messages if m["role"] != "assistant"][-1:] or [{"role": "user", "content": "x"}]
    ask = [{"role": "user", "content": "x"}] if ask[0]["role"] != "user" else ask
    without, with_cue = render(tokenizer, ask), render(tokenizer, ask, generate=True)
    return with_cue[len(without) :] if with_cue.startswith(without) else ""


def _after_cue(before: str, cue: str) -> int:
    """Characters between the cue and the words: a thinking block the model has to write itself."""
    if not cue:
        return 0
    at = before.rfind(cue)
    if at < 0:
        raise _unproven("the cue for an answer does not stand before it")
    return len(before) - at - len(cue)


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


def tagged_spans(tokenizer: Any, messages: list[Message]) -> tuple[str, list[Span]]:
    """The rendering and the spans that the template's own `{% generation %}` tags name, one an assistant message."""
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        rendered: Any = render_jinja_template(
            conversations=[messages],
            chat_template=tokenizer.chat_template,
            return_assistant_tokens_mask=True,
            **tokenizer.special_tokens_map,
        )
    except (TemplateError, TypeError) as error:
        raise _refused(error) from error
    texts, found = rendered
    spans = [(int(a), int(b)) for a, b in found[0]]
    answers = sum(m["role"] == "assistant" for m in messages)
    if len(spans) != answers or texts[0] != render(tokenizer, messages):
        raise _unproven(f"{answers} answers, but {len(spans)} spans in generation tags")
    return str(texts[0]), spans
