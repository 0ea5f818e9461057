"""Examples -> token ids and the mask of trained tokens. The only place where that mask is made.

The ids of a conversation are those of `tokenizer.apply_chat_template(..., tokenize=True)`: what a server sends. So the
start token comes from the template alone; `plain` and `chatml` write it where the tokenizer puts one before a text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuneloop.errors import DataError, UsageError
from tuneloop.prompts.spans import Message, Span, Tools, assistant_spans, check_whole, render, tagged_spans
from tuneloop.prompts.templates import apply_template, start_ids, uses_generation_tag
from tuneloop.records import Example


@dataclass(slots=True)
class Encoded:
    """`input_ids[i]` is a loss target iff `trained[i]`; `truncated` when `max_length` cut tokens off the end."""

    input_ids: list[int]
    trained: list[bool]
    text: str
    truncated: bool = False


def encode(example: Example, tokenizer: Any, *, max_length: int | None = None) -> Encoded:
    """Token ids and mask of one example.

    Conversations: thinking block, words and end of turn of every assistant message whose `weight` is not 0.
    Prompt and completion: the completion and the end token. Text: every token and the end token.
    With `max_length`, tokens beyond it are cut off the end and `truncated` says so.
    Raises DataError 340-344 and UsageError 121, 129, 140.
    """
    if example.messages is not None:
        found = _conversation(example.messages, tokenizer, example.tools)
    elif example.text is not None:
        found = _raw("", example.text, tokenizer)
    else:
        found = _raw(example.prompt or "", example.completion or "", tokenizer)
    if max_length is not None and len(found.input_ids) > max_length:
        return Encoded(found.input_ids[:max_length], found.trained[:max_length], found.text, truncated=True)
    return found


def encode_pair(example: Example, tokenizer: Any) -> tuple[Encoded, Encoded]:
    """The chosen and the rejected text of a preference example; only the answers' tokens are trained.

    Raises as `encode`.
    """
    if example.messages is None:
        return (
            _raw(example.prompt or "", str(example.chosen or ""), tokenizer),
            _raw(example.prompt or "", str(example.rejected or ""), tokenizer),
        )
    asked = [{**m, "weight": 0} if m.get("role") == "assistant" else m for m in example.messages]
    return (
        _conversation([*asked, *_turns(example.chosen)], tokenizer),
        _conversation([*asked, *_turns(example.rejected)], tokenizer),
    )


def _turns(answer: list[Message] | str | None) -> list[Message]:
    return answer if isinstance(answer, list) else [{"role": "assistant", "content": answer or ""}]


def _raw(prompt: str, trained: str, tokenizer: Any) -> Encoded:
    if tokenizer.eos_token_id is None:
        raise UsageError(129, "the tokenizer has no end token", where="model.name", cure="add eos_token to its config")
    text = prompt + trained
    ids, offsets = _tokens(text, tokenizer)
    # Some tokenizers write a first token without characters; in a text without a prompt it is trained too.
    mask = _mask(offsets, [(len(prompt), len(text))]) if prompt else [True] * len(ids)
    bos = start_ids(tokenizer)
    return Encoded([*bos, *ids, tokenizer.eos_token_id], [*[False] * len(bos), *mask, True], text)


def _conversation(messages: list[Message], tokenizer: Any, tools: Tools = None) -> Encoded:
    roles = [m.get("role") for m in messages]
    if not all(isinstance(role, str) for role in roles):
        raise DataError(343, "a message without a role", where="messages", expected="role and content in each")
    tagged = uses_generation_tag(_template(tokenizer))
    text, spans = (tagged_spans if tagged else assistant_spans)(tokenizer, messages, tools)
    check_whole(tokenizer, messages, tools)
    weights = [m.get("weight") for m in messages if m["role"] == "assistant"]
    kept = [span for span, weight in zip(spans, weights, strict=True) if weight is None or weight > 0]
    ids, offsets = _tokens(text, tokenizer)
    return Encoded(ids, _mask(offsets, kept), text)


def _template(tokenizer: Any) -> str:
    """The template in force. Raises UsageError 121 where none is set."""
    return apply_template(tokenizer, None)


def _tokens(text: str, tokenizer: Any) -> tuple[list[int], list[Span]]:
    if not tokenizer.is_fast:
        raise UsageError(
            140,
            "this tokenizer does not say where its tokens stand in the text",
            where=f"model.name ({type(tokenizer).__name__})",
            expected="a model folder with tokenizer.json",
        )
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return list(found["input_ids"]), [(int(a), int(b)) for a, b in found["offset_mapping"]]


def _mask(offsets: list[Span], spans: list[Span]) -> list[bool]:
    """A token is trained when it ends inside a span: one that joins the last header character to the first word is."""
    return [any(start < b <= end for start, end in spans) for _, b in offsets]


def render_prompt(messages: list[Message], tokenizer: Any, tools: Tools = None) -> str:
    """The conversation with the cue for the next answer."""
    _template(tokenizer)
    return render(tokenizer, messages, tools=tools, generate=True)


def encode_prompt(messages: list[Message], tokenizer: Any, tools: Tools = None) -> list[int]:
    """Token ids of `render_prompt`."""
    return _tokens(render_prompt(messages, tokenizer, tools), tokenizer)[0]
