"""Many examples -> token ids and masks at once: what `encode` gives for each, to the token, several times faster.

`encode` renders a conversation several times to prove where its answers stand. Here the proof is made once for each
order of roles: a rendering in which every text is a mark gives the pieces between texts. A conversation of that order
is rendered once (by a known path through the template where it takes one), and only where pieces and texts put together
are that rendering are its spans taken from the pieces. Everything else goes through `encode`: generation tags,
thoughts, tools, texts that a template changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tuneloop.errors import TuneloopError
from tuneloop.prompts.encode import Encoded, encode
from tuneloop.prompts.paths import Paths
from tuneloop.prompts.spans import REFUSALS, Span, assistant_spans
from tuneloop.prompts.templates import apply_template, start_ids, uses_generation_tag
from tuneloop.records import Example

MARK = "\ue000{}\ue001"
CHUNK = 256
PLAIN_KEYS = frozenset(("role", "content", "weight"))


@dataclass(frozen=True)
class Laid:
    """A text with its trained spans (None: all of it), and the tokens that stand before and after a raw one."""

    text: str
    spans: list[Span] | None
    ends: tuple[list[int], int] | None


@dataclass(frozen=True)
class Shape:
    """What a template writes around the texts of one order of roles, and where trained spans begin and end."""

    pieces: tuple[str, ...]  # one more than texts
    lead: tuple[int, ...]  # of each text: trained characters before it; -1 where it is no answer
    tail: tuple[int, ...]  # trained characters after it


@dataclass
class Known:
    """What was found out about the template so far."""

    shapes: dict[tuple[str, ...], Shape | None] = field(default_factory=dict)
    paths: Paths | None = None


def encode_batch(examples: Sequence[Example], tokenizer: Any) -> list[Encoded | TuneloopError]:
    """`encode` of each example; the error it raises stands in the place of one that cannot be encoded."""
    out: list[Encoded | TuneloopError | None] = [None] * len(examples)
    known = Known()
    # Rust tokenises one chunk while Python lays out the next.
    with ThreadPoolExecutor(1) as pool:
        waiting: list[tuple[dict[int, Laid], Future[list[Any]]]] = []
        for start in range(0, len(examples), CHUNK):
            laid = _laid_out(examples, range(start, min(start + CHUNK, len(examples))), tokenizer, known)
            texts = [one.text for one in laid.values()]
            waiting.append((laid, pool.submit(_tokens, texts, tokenizer)))
            if len(waiting) > 1:
                _collect(*waiting.pop(0), out)
        for held in waiting:
            _collect(*held, out)
    return [_single(example, tokenizer) if held is None else held for example, held in zip(examples, out, strict=True)]


def _collect(laid: dict[int, Laid], tokens: Future[list[Any]], out: list[Encoded | TuneloopError | None]) -> None:
    for (index, one), encoding in zip(laid.items(), tokens.result(), strict=True):
        mask = [True] * len(encoding) if one.spans is None else _mask(encoding, one.spans)
        ids = encoding.ids
        if one.ends is None:
            out[index] = Encoded(ids, mask, one.text)
        else:
            bos, eos = one.ends
            out[index] = Encoded([*bos, *ids, eos], [*[False] * len(bos), *mask, True], one.text)


def _single(example: Example, tokenizer: Any) -> Encoded | TuneloopError:
    try:
        return encode(example, tokenizer)
    except TuneloopError as error:
        return error


def _tokens(texts: list[str], tokenizer: Any) -> list[Any]:
    return list(tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)) if texts else []


def _mask(encoding: Any, spans: list[Span]) -> list[bool]:
    """A token is trained when it ends inside a span, as in `encode`; found by its characters, not token by token."""
    count = len(encoding)
    mask = [False] * count
    for start, stop in spans:
        if start >= stop:
            continue
        first, last = encoding.char_to_token(start), encoding.char_to_token(stop - 1)
        if first is None or last is None:  # a character that no token stands for
            return [any(a < end <= b for a, b in spans) for _, end in encoding.offsets]
        if encoding.token_to_chars(last)[1] > stop:
            last -= 1
        while last + 1 < count and (chars := encoding.token_to_chars(last + 1)) is not None and chars[1] <= stop:
            last += 1
        mask[first : last + 1] = [True] * (last + 1 - first)
    return mask


def _laid_out(examples: Sequence[Example], indices: range, tokenizer: Any, known: Known) -> dict[int, Laid]:
    """index -> text and trained spans of the examples that need no look of their own."""
    if not tokenizer.is_fast:
        return {}
    return _conversations(examples, indices, tokenizer, known) | _raw(examples, indices, tokenizer)


def _raw(examples: Sequence[Example], indices: range, tokenizer: Any) -> dict[int, Laid]:
    """Prompts with completions, and texts."""
    if tokenizer.eos_token_id is None:
        return {}
    found: dict[int, Laid] = {}
    bos: list[int] | None = None
    for index in indices:
        example = examples[index]
        if example.messages is not None or example.chosen is not None:
            continue
        if example.text is None and example.completion is None:
            continue
        bos = start_ids(tokenizer) if bos is None else bos
        prompt, trained = ("", example.text) if example.text is not None else (example.prompt or "", example.completion)
        text = f"{prompt}{trained}"
        spans = [(len(prompt), len(text))] if prompt else None
        found[index] = Laid(text, spans, (bos, tokenizer.eos_token_id))
    return found


def _conversations(examples: Sequence[Example], indices: range, tokenizer: Any, known: Known) -> dict[int, Laid]:
    """Those whose spans can be taken from their shape."""
    plain = [i for i in indices if (m := examples[i].messages) is not None and examples[i].tools is None and _plain(m)]
    if not plain:
        return {}
    template = apply_template(tokenizer, None)
    if uses_generation_tag(template):
        return {}
    usable: dict[int, Shape] = {}
    for index in plain:
        roles = tuple([m["role"] for m in examples[index].messages or []])
        if roles not in known.shapes:
            known.shapes[roles] = _shape(roles, tokenizer)
        if (shape := known.shapes[roles]) is not None:
            usable[index] = shape
    known.paths = known.paths or Paths(template, tokenizer.special_tokens_map)
    paths = {i: known.paths.render(examples[i].messages or []) for i in usable}
    rendered = {i: text for i, text in paths.items() if text is not None}
    rest = [i for i in usable if i not in rendered]
    rendered |= zip(rest, _render([examples[i].messages or [] for i in rest], template, tokenizer), strict=True)
    found = {}
    for index, shape in usable.items():
        text = rendered[index]
        spans = _spans(shape, examples[index].messages or [], text)
        if spans is not None:
            found[index] = Laid(text, spans, None)
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
    except (TemplateError, *REFUSALS):
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
