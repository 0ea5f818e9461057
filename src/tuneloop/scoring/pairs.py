"""Prompt and continuation to token ids, by the rules of lm-eval 0.4.13's HFLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tuneloop.errors import DataError


@dataclass(slots=True)
class Pair:
    """`prompt` and `scored` token ids; `mismatch`: the prompt's tokens are not a prefix of the whole's; `cut`: it lost
    its beginning to the context length."""

    prompt: list[int]
    scored: list[int]
    mismatch: bool = False
    cut: bool = False


def fit(pair: Pair, room: int) -> Pair:
    """Keeps the last `room` + 1 tokens, of which the final one is only predicted, as lm-eval does."""
    over = len(pair.prompt) + len(pair.scored) - room - 1
    if over <= 0:
        return pair
    if over < len(pair.prompt):
        return Pair(pair.prompt[over:], pair.scored, pair.mismatch, True)
    whole = pair.scored[-(room + 1) :]  # the continuation alone is too long: its first token becomes the prompt
    return Pair(whole[:1], whole[1:], pair.mismatch, True)


def pair_tokens(tokenizer: Any, requests: Sequence[tuple[str, list[str]]]) -> list[list[Pair]]:
    """Tokens of every (prompt, continuations).

    Trailing blanks of the prompt move to the continuation; the continuation is the encoding of both minus the length of
    the prompt's own. Where a token spans the join and nothing is left, the continuation is encoded alone.
    """
    prompts, wholes = [], []
    for prompt, continuations in requests:
        stem = prompt.rstrip()
        prompts.append(stem)
        wholes += [prompt + text for text in continuations] if stem else list(continuations)
    stems = dict.fromkeys(prompts)
    ids = dict(zip(stems, encode_texts(tokenizer, list(stems)), strict=True))
    encoded = iter(encode_texts(tokenizer, wholes))
    result = []
    for (prompt, continuations), stem in zip(requests, prompts, strict=True):
        result.append([_pair(tokenizer, ids[stem] if stem else None, next(encoded), text) for text in continuations])
        if not continuations:
            raise DataError(375, "a prompt without continuations", where=prompt[:60])
    return result


def _pair(tokenizer: Any, stem: list[int] | None, whole: list[int], text: str) -> Pair:
    if stem is None:
        return _unprompted(tokenizer, text)
    scored, mismatch = whole[len(stem) :], whole[: len(stem)] != stem
    if not scored:
        scored, mismatch = tokenizer.encode(text, add_special_tokens=False), True
    if not scored:
        raise DataError(376, f"a continuation without tokens: {text!r}", cure="remove the empty option")
    return Pair(stem, scored, mismatch)


def _unprompted(tokenizer: Any, text: str) -> Pair:
    """An empty prompt conditions on the start token, else the end token, unless the text begins with it."""
    scored = tokenizer.encode(text, add_special_tokens=False)
    first = prefix_token(tokenizer)
    if scored[:1] != [first]:
        return Pair([first], scored)
    if len(scored) < 2:
        raise DataError(376, f"a continuation without tokens: {text!r}", cure="remove the empty option")
    return Pair(scored[:1], scored[1:])


def prefix_token(tokenizer: Any) -> int:
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    raise DataError(377, "an empty prompt, and a tokenizer with neither start nor end token")


def encode_texts(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Ids with the tokenizer's own special tokens, unless a text already begins with the start token."""
    first = tokenizer.decode(prefix_token(tokenizer)) if tokenizer.bos_token_id is not None else ""
    # Not verbose: what is longer than the context is cut and counted later.
    marked = [i for i, text in enumerate(texts) if first and text.startswith(first)]
    found: list[list[int]] = [list(i) for i in tokenizer(texts, verbose=False)["input_ids"]] if texts else []
    for i in marked:
        found[i] = list(tokenizer.encode(texts[i], add_special_tokens=False))
    return found
