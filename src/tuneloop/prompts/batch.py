"""Many examples -> token ids and masks at once: what `encode` gives for each, to the token, several times faster.

`encode` renders a conversation several times to prove where its answers stand. Here the proof is made once for each
order of roles: a rendering in which every text is a mark gives the pieces between texts. A conversation of that order
is rendered once, and only where pieces and texts put together are that rendering are its spans taken from the pieces.
Everything else goes through `encode`: generation tags, thoughts, tools, texts that a template changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tuneloop.errors import TuneloopError
from tuneloop.prompts.encode import Encoded, encode
from tuneloop.prompts.spans import Span, assistant_spans
from tuneloop.prompts.templates import apply_template, start_ids, uses_generation_tag
from tuneloop.records import Example

MARK = "\ue000{}\ue001"
PLAIN_KEYS = frozenset(("role", "content", "weight"))


@dataclass(frozen=True)
class Shape:
    """What a template writes around the texts of one order of roles, and where trained spans begin and end."""

    pieces: tuple[str, ...]  # one more than texts
    lead: tuple[int, ...]  # of each text: trained characters before it; -1 where it is no answer
    tail: tuple[int, ...]  # trained characters after it


def encode_batch(examples: Sequence[Example], tokenizer: Any) -> list[Encoded | TuneloopError]:
    """`encode` of each example; the error it raises stands in the place of one that cannot be encoded."""
    out: list[Encoded | TuneloopError | None] = [None] * len(examples)
    texts: list[str] = []
    spans: list[list[Span]] = []
    at: list[int] = []
    for index, (text, found) in _laid_out(examples, tokenizer).items():
        texts.append(text)
        spans.append(found)
        at.append(index)
    for index, text, found, encoded in zip(at, texts, spans, _tokens(texts, tokenizer), strict=True):
        out[index] = Encoded(encoded.ids, _mask(encoded.offsets, found), text)
    _raw(examples, tokenizer, out)
    return [_single(example, tokenizer) if held is None else held for example, held in zip(examples, out, strict=True)]


def _single(example: Example, tokenizer: Any) -> Encoded | TuneloopError:
    try:
        return encode(example, tokenizer)
    except TuneloopError as error:
        return error


def _tokens(texts: list[str], tokenizer: Any) -> list[Any]:
    return list(tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)) if texts else []


def _mask(offsets: list[Span], spans: list[Span]) -> list[bool]:
    if len(spans) == 1:
        start, stop = spans[0]
        return [start < end <= stop for _, end in offsets]
    return [any(start < end <= stop for start, stop in spans) for _, end in offsets]


def _raw(examples: Sequence[Example], tokenizer: Any, out: list[Encoded | TuneloopError | None]) -> None:
    """Prompts with completions, and texts."""
    if tokenizer.eos_token_id is None or not tokenizer.is_fast:
        return
    at = [
        i
        for i, e in enumerate(examples)
        if e.messages is None and e.chosen is None and (e.text is not None or e.completion is not None)
    ]
    parts = [
        ("", e.text) if e.text is not None else (e.prompt or "", e.completion or "") for e in (examples[i] for i in at)
    ]
    bos = start_ids(tokenizer) if at else []
    texts = [prompt + trained for prompt, trained in parts]
    for index, (prompt, _), text, encoded in zip(at, parts, texts, _tokens(texts, tokenizer), strict=True):
        mask = _mask(encoded.offsets, [(len(prompt), len(text))]) if prompt else [True] * len(encoded.ids)
        ids = [*bos, *encoded.ids, tokenizer.eos_token_id]
        out[index] = Encoded(ids, [*[False] * len(bos), *mask, True], text)


def _laid_out(examples: Sequence[Example], tokenizer: Any) -> dict[int, tuple[str, list[Span]]]:
    """index -> rendering and trained spans of the conversations whose spans could be taken from their shape."""
    plain = [i for i, e in enumerate(examples) if e.messages is not None and e.tools is None and _plain(e.messages)]
    if not plain or not tokenizer.is_fast:
        return {}
    template = apply_template(tokenizer, None)
    if uses_generation_tag(template):
        return {}
    shapes: dict[tuple[str, ...], Shape | None] = {}
    usable: dict[int, Shape] = {}
    for index in plain:
        roles = tuple(m["role"] for m in examples[index].messages or [])
        if roles not in shapes:
            shapes[roles] = _shape(roles, tokenizer)
        if (shape := shapes[roles]) is not None:
            usable[index] = shape
    rendered = _render([examples[i].messages or [] for i in usable], template, tokenizer)
    found = {}
    for (index, shape), text in zip(usable.items(), rendered, strict=True):
        spans = _spans(shape, examples[index].messages or [], text)
        if spans is not None:
            found[index] = (text, spans)
    return found


def _plain(messages: list[dict[str, Any]]) -> bool:
    return all(
        isinstance(content := m.get("content"), str)
        and isinstance(m.get("role"), str)
        and m.keys() <= PLAIN_KEYS
        and "think>" not in content  # templates of thinking models cut an answer apart there
        for m in messages
    )


def _render(conversations: list[list[dict[str, Any]]], template: str, tokenizer: Any) -> list[str]:
    from jinja2 import TemplateError
    from transformers.utils.chat_template_utils import render_jinja_template

    if not conversations:
        return []
    try:
        texts: Any = render_jinja_template(
            conversations=conversations, chat_template=template, **tokenizer.special_tokens_map
        )[0]
        return list(texts)
    except (TemplateError, TypeError):
        # One of them is refused: `encode` finds out which. None of these is a rendering.
        return ["\ue000"] * len(conversations)


def _shape(roles: tuple[str, ...], tokenizer: Any) -> Shape | None:
    """None where the template refuses this order, or does more than write between the texts."""
    marks = [MARK.format(number) for number in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    try:
        text, spans = assistant_spans(tokenizer, messages)
    except TuneloopError:
        return None
    pieces, lead, tail, position = [], [], [], 0
    left = iter(spans)
    for role, mark in zip(roles, marks, strict=True):
        start = text.find(mark, position)
        if start < 0 or text.count(mark) != 1:
            return None
        pieces.append(text[position:start])
        position = start + len(mark)
        span = next(left) if role == "assistant" else None
        lead.append(start - span[0] if span else -1)
        tail.append(span[1] - position if span else 0)
    return Shape((*pieces, text[position:]), tuple(lead), tuple(tail))


def _spans(shape: Shape, messages: list[dict[str, Any]], text: str) -> list[Span] | None:
    """The trained spans, or None where pieces and texts put together are not the rendering."""
    contents = [m["content"] for m in messages]
    if "".join(chain.from_iterable(zip(shape.pieces, contents, strict=False))) + shape.pieces[-1] != text:
        contents = [content.strip() for content in contents]
        if "".join(chain.from_iterable(zip(shape.pieces, contents, strict=False))) + shape.pieces[-1] != text:
            return None
    spans, position = [], 0
    for number, (message, content) in enumerate(zip(messages, contents, strict=True)):
        start = position + len(shape.pieces[number])
        position = start + len(content)
        weight = message.get("weight")
        if shape.lead[number] >= 0 and (weight is None or weight > 0):
            spans.append((start - shape.lead[number], position + shape.tail[number]))
    return spans


def best_fit(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Packs of at most `size` tokens: each example, longest first, into the fullest pack that takes it.

    Longer ones than `size` stand alone. O(n + size) beside the sort: packs are kept by the room they have left.
    """
    by_room: list[list[list[int]]] = [[] for _ in range(size + 1)]
    packs: list[list[int]] = []
    tree = _Rooms(size)
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        length = lengths[index]
        room = tree.smallest(length) if length <= size else -1
        if room < 0:
            pack = [index]
            packs.append(pack)
            room = size
        else:
            pack = by_room[room].pop()
            if not by_room[room]:
                tree.clear(room)
            pack.append(index)
        if (left := room - length) > 0:
            by_room[left].append(pack)
            tree.set(left)
    return packs


class _Rooms:
    """The set of rooms that some pack has left, as the bits of one number."""

    def __init__(self, size: int) -> None:
        self.bits = 0

    def set(self, room: int) -> None:
        self.bits |= 1 << room

    def clear(self, room: int) -> None:
        self.bits &= ~(1 << room)

    def smallest(self, at_least: int) -> int:
        above = self.bits >> at_least
        return at_least + (above & -above).bit_length() - 1 if above else -1
