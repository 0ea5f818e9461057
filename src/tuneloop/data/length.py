"""How many tokens a row has for a model, and what is done with one that is too long: said, counted, never silent."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from tuneloop.data.rows import Refused
from tuneloop.errors import TuneloopError, UsageError
from tuneloop.prompts.batch import encode_batch
from tuneloop.records import Example, example_id

Fitted = list[tuple[Example, int, int]]  # pieces, each with its tokens beside the answer and of the answer
PIECE = re.compile(r"\n\s*\n|(?<=[.!?…。])\s+|\n")


def tokenizer(name: str, revision: str | None, template: str | None) -> Any:
    """The tokenizer with its template; without any, chat rows cannot be counted (UsageError 121)."""
    from tuneloop.models import load_tokenizer
    from tuneloop.prompts import apply_template

    loaded = load_tokenizer(name, revision=revision)
    if template is not None or getattr(loaded, "chat_template", None):
        apply_template(loaded, template)
    return loaded


def fit(examples: list[Example], loaded: Any, most: int | None, policy: str, seen: set[int]) -> list[Fitted | Refused]:
    """For each example its pieces (one, unless it was split) or why it goes; adds the tokens met to `seen`."""
    out: list[Fitted | Refused] = []
    for example, found in zip(examples, _count(examples, loaded, seen), strict=True):
        if isinstance(found, Refused):
            out.append(found)
        elif most is None or sum(found) <= most:
            out.append([(example, *found)])
        else:
            out.append(_shorter(example, found, loaded, most, policy))
    return out


def _count(examples: list[Example], loaded: Any, seen: set[int] | None = None) -> list[tuple[int, int] | Refused]:
    """Tokens (not trained, trained) of each; a pair counts with its longer answer."""
    flat: list[Example] = []
    owner = []
    for index, example in enumerate(examples):
        own = sides(example)
        flat += own
        owner += [index] * len(own)
    best: list[tuple[int, int] | Refused] = [(0, 0)] * len(examples)
    for index, found in zip(owner, encode_batch(flat, loaded), strict=True):
        held = best[index]
        if isinstance(found, UsageError):
            raise found  # the model has no template, say: no row of its own is at fault
        if isinstance(found, TuneloopError):
            best[index] = Refused("template", field="messages", value=found.what, cure=found.cure or "mend the row")
        elif not isinstance(held, Refused):
            trained = sum(found.trained)
            if seen is not None:
                seen.update(found.input_ids)
            best[index] = max(held, (len(found.input_ids) - trained, trained), key=sum)
    return best


def sides(example: Example) -> list[Example]:
    if example.chosen is None:
        return [example]
    if isinstance(example.chosen, list) and isinstance(example.rejected, list):
        before = example.messages or []
        return [Example(messages=[*before, *side], tools=example.tools) for side in (example.chosen, example.rejected)]
    return [Example(prompt=example.prompt, completion=str(side)) for side in (example.chosen, example.rejected)]


def _too_long(found: tuple[int, int], most: int, why: str = "") -> Refused:
    cure = "shorten it, raise data.max_length, or set data.over_long to split or truncate"
    return Refused("too_long", field="tokens", value=f"{sum(found)} tokens, at most {most}{why}", cure=cure)


def _shorter(example: Example, found: tuple[int, int], loaded: Any, most: int, policy: str) -> Fitted | Refused:
    if policy == "reject" or example.chosen is not None:
        return _too_long(found, most)
    if policy == "truncate":
        return _truncated(example, found, loaded, most)
    pieces = _text_pieces(example, loaded, most) if example.text is not None else _turn_pieces(example, loaded, most)
    if not pieces:
        return _too_long(found, most, ", and no place to split it")
    named = []
    for number, (piece, asked, answer) in enumerate(pieces, start=1):
        piece.parents = [example.id]
        piece.flags = [*example.flags, f"piece {number} of {len(pieces)}"]
        piece.id = example_id(piece)
        named.append((piece, asked, answer))
    return named


def _text_pieces(example: Example, loaded: Any, most: int) -> Fitted:
    """Whole sentences as long as they fit; a sentence that is too long by itself leaves nothing."""
    text = example.text or ""
    ends = [*(found.end() for found in PIECE.finditer(text)), len(text)]
    pieces: Fitted = []
    start = place = 0
    while place < len(ends):
        # The longest run of sentences from `start` that fits, by halving: counting tokens is what costs.
        low, high, best = place, len(ends) - 1, None
        while low <= high:
            middle = (low + high) // 2
            piece = replace(example, text=text[start : ends[middle]].rstrip())
            counted = _count([piece], loaded)[0]
            if isinstance(counted, Refused):
                return []
            if sum(counted) <= most:
                best, low = (middle, piece, counted), middle + 1
            else:
                high = middle - 1
        if best is None:
            return []
        if best[1].text:
            pieces.append((best[1], *best[2]))
        place, start = best[0] + 1, ends[best[0]]
    return pieces


def _turn_pieces(example: Example, loaded: Any, most: int) -> Fitted:
    """Whole exchanges (a user turn to the answer before the next) as long as they fit, each with the system turn."""
    messages = example.messages or []
    head = [m for m in messages[:1] if m["role"] in ("system", "developer")]
    exchanges: list[list[dict[str, Any]]] = []
    for message in messages[len(head) :]:
        if message["role"] == "user" and (not exchanges or exchanges[-1][-1]["role"] == "assistant"):
            exchanges.append([])
        if not exchanges:
            return []
        exchanges[-1].append(message)
    pieces: Fitted = []
    held: list[dict[str, Any]] = []
    best: tuple[Example, int, int] | None = None
    for exchange in exchanges:
        for tried in ([*held, *exchange], exchange):
            piece = replace(example, messages=[*head, *tried])
            counted = _count([piece], loaded)[0]
            if not isinstance(counted, Refused) and sum(counted) <= most:
                if tried is exchange and best is not None:
                    pieces.append(best)
                held, best = tried, (piece, *counted)
                break
        else:
            return []
    return [*pieces, best] if best is not None and pieces else []


def _truncated(example: Example, found: tuple[int, int], loaded: Any, most: int) -> Fitted | Refused:
    """The end of the last answer (or text) cut off, by halving; the prompt is never cut."""
    text = str(_last(example))
    low, high, best = 1, len(text) - 1, None
    while low <= high:
        middle = (low + high) // 2
        piece = _with_last(example, text[:middle].rstrip())
        counted = _count([piece], loaded)[0]
        if isinstance(counted, Refused):
            return counted
        if sum(counted) <= most:
            best, low = (piece, *counted), middle + 1
        else:
            high = middle - 1
    if best is None or not _last(best[0]):
        return _too_long(found, most, ", and the prompt alone fills them")
    best[0].flags = [*example.flags, f"truncated from {sum(found)} tokens"]
    best[0].id = example_id(best[0])
    return [best]


def _last(example: Example) -> str | None:
    if example.messages is not None:
        return str(example.messages[-1]["content"])
    return example.text if example.text is not None else example.completion


def _with_last(example: Example, text: str) -> Example:
    if example.messages is not None:
        return replace(example, messages=[*example.messages[:-1], {**example.messages[-1], "content": text}])
    return replace(example, text=text) if example.text is not None else replace(example, completion=text)
