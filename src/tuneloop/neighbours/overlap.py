"""Which texts of a batch repeat an item of a benchmark: word n-grams, counted by how much of the item they cover.

An item of fewer than 8 words is found as a whole string only. From 8 words on, the 8-grams that a single text shares
with it must cover half of it, or three quarters where it has fewer than 16 words and one 8-gram is half of it. Words
count by how rare they are among the items, or "which of the following is an example of" would be half of many
questions; an n-gram of three different items is a stock phrase and counts for nothing. A text or an item of more than
200 words is also found by any 13-gram. `docs/data.md` says where these numbers come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.neighbours.minhash import mix
from tuneloop.text import normalise

SHORT, LONG, LONG_WORDS = 8, 13, 200
COVERAGE, SHORT_COVERAGE, SHORT_WORDS = 0.5, 0.75, 16
STOCK = 3
FILTER_BITS = 24

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_INVERSE = np.uint64(pow(0x9E3779B97F4A7C15, -1, 1 << 64))


@cache
def _is_word() -> NDArray[np.bool_]:
    """Which code points are letters or digits."""
    return np.fromiter((chr(code).isalnum() for code in range(0x110000)), bool, 0x110000)


@cache
def _powers(bits: int) -> tuple[U64, U64]:
    """The prime and its inverse to the powers 0 ... 2**bits - 1, modulo 2**64."""
    out = []
    for base in (_PRIME, _INVERSE):
        powers = np.full(1 << bits, base, np.uint64)
        powers[0] = 1
        out.append(np.cumprod(powers, dtype=np.uint64))
    return out[0], out[1]


def word_hashes(texts: Sequence[str]) -> tuple[U64, I64]:
    """(hashes, offsets): the words of normalised text i, in order, are `hashes[offsets[i]:offsets[i + 1]]`."""
    held = [normalise(text) for text in texts]
    joined = "\n".join(held) + "\n"
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    word = _is_word()[codes]
    edge = np.diff(np.concatenate([[False], word, [False]]).astype(np.int8))
    starts, ends = np.flatnonzero(edge == 1), np.flatnonzero(edge == -1)
    powers, inverses = _powers(max(16, len(codes).bit_length()))
    sums = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * powers[: len(codes)], out=sums[1:])
    hashes = mix((sums[ends] - sums[starts]) * inverses[starts] + (ends - starts).astype(np.uint64))
    line_ends = np.cumsum(np.fromiter((len(text) + 1 for text in held), np.int64, len(held)))
    return hashes, np.concatenate([[0], np.searchsorted(starts, line_ends)]).astype(np.int64)


def grams(hashes: U64, offsets: I64, n: int) -> tuple[U64, I64]:
    """(gram, position of its first word) of every run of `n` words inside one text."""
    if len(hashes) < n:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    out = hashes[: len(hashes) - n + 1].copy()
    for step in range(1, n):
        out = out * _PRIME + hashes[step : len(hashes) - n + 1 + step]
    left = np.repeat(offsets[1:], np.diff(offsets))[: len(out)] - np.arange(len(out))
    at = np.flatnonzero(left >= n)
    return mix(out[at]), at


def whole(hashes: U64) -> int:
    """One number for a run of words."""
    value = np.uint64(len(hashes))
    with np.errstate(over="ignore"):
        for one in hashes:
            value = value * _PRIME + one
    return int(value)


@dataclass
class Grams:
    """Sorted n-grams of all items, with the item and the word of it where each stands; a bit field in front."""

    n: int
    gram: U64
    item: NDArray[np.int32]
    place: NDArray[np.int32]
    seen: NDArray[np.bool_] = field(repr=False)

    @classmethod
    def of(cls, n: int, hashes: U64, offsets: I64, alike: NDArray[np.int64]) -> Grams:
        """`alike[i]` is equal for items that are the same text: those make no phrase a stock phrase."""
        gram, at = grams(hashes, offsets, n)
        item = (np.searchsorted(offsets, at, "right") - 1).astype(np.int64)
        place = at - offsets[item]
        order = np.lexsort((alike[item], gram))
        gram, item, place = gram[order], item[order], place[order]
        other = np.ones(len(gram), bool)
        other[1:] = (gram[1:] != gram[:-1]) | (alike[item[1:]] != alike[item[:-1]])
        fresh = np.ones(len(gram), bool)
        fresh[1:] = gram[1:] != gram[:-1]
        run = np.cumsum(fresh) - 1
        keep = np.bincount(run, weights=other)[run] < STOCK if len(run) else other
        gram, item, place = gram[keep], item[keep], place[keep]
        seen = np.zeros(1 << FILTER_BITS, bool)
        seen[gram >> np.uint64(64 - FILTER_BITS)] = True
        return cls(n, gram, item.astype(np.int32), place.astype(np.int32), seen)

    def hits(self, hashes: U64, offsets: I64) -> dict[tuple[int, int], set[int]]:
        """(text, item) -> the words of the item where a shared n-gram begins."""
        gram, at = grams(hashes, offsets, self.n)
        maybe = self.seen[gram >> np.uint64(64 - FILTER_BITS)]
        gram, at = gram[maybe], at[maybe]
        low, high = np.searchsorted(self.gram, gram, "left"), np.searchsorted(self.gram, gram, "right")
        found: dict[tuple[int, int], set[int]] = {}
        for one in np.flatnonzero(high > low).tolist():
            text = int(np.searchsorted(offsets, at[one], "right")) - 1
            for place in range(int(low[one]), int(high[one])):
                found.setdefault((text, int(self.item[place])), set()).add(int(self.place[place]))
        return found


@dataclass
class Overlap:
    """One find: `share` is the part of the item's words that the text repeats."""

    text: int
    item: int
    rule: str
    share: float


class OverlapIndex:
    """The items that must not be trained on. `names[i]` says whose item i is, `texts[i]` what it says."""

    def __init__(self, names: list[str], texts: list[str]) -> None:
        self.names, self.texts = names, texts
        hashes, offsets = word_hashes(texts) if texts else (np.zeros(0, np.uint64), np.zeros(1, np.int64))
        self.lengths = np.diff(offsets)
        wholes = [whole(hashes[offsets[i] : offsets[i + 1]]) for i in range(len(texts))]
        alike = np.unique(np.array(wholes, np.uint64), return_inverse=True)[1].astype(np.int64)
        self.alike = alike  # equal for items that are the same text, in whatever benchmark
        self.weights = _rarity(hashes, offsets)
        self.starts = offsets
        self.wholes = {w: i for i, w in reversed(list(enumerate(wholes))) if self.lengths[i]}
        self.short = Grams.of(SHORT, hashes, offsets, alike)
        self.long = Grams.of(LONG, hashes, offsets, alike)

    def search(self, texts: Sequence[str], wholes: Sequence[str]) -> list[Overlap]:
        """The best find of each text that has one. `wholes[i]`: what of text i may equal an item as a whole string."""
        best: dict[int, Overlap] = {}
        hashes, offsets = word_hashes(texts)
        for (text, item), places in self.short.hits(hashes, offsets).items():
            share = self._share(item, places, SHORT)
            if share >= (COVERAGE if self.lengths[item] >= SHORT_WORDS else SHORT_COVERAGE):
                _better(best, Overlap(text, item, f"{SHORT}-gram coverage", share))
        for (text, item), places in self.long.hits(hashes, offsets).items():
            if max(self.lengths[item], offsets[text + 1] - offsets[text]) > LONG_WORDS:
                _better(best, Overlap(text, item, f"{LONG}-gram", self._share(item, places, LONG)))
        hashes, offsets = word_hashes(wholes)
        for text in range(len(wholes)):
            if offsets[text + 1] > offsets[text]:
                item = self.wholes.get(whole(hashes[offsets[text] : offsets[text + 1]]), -1)
                if item >= 0:
                    _better(best, Overlap(text, item, "whole string", 1.0))
        return [best[text] for text in sorted(best)]

    def _share(self, item: int, places: set[int], n: int) -> float:
        weights = self.weights[self.starts[item] : self.starts[item + 1]]
        covered = np.zeros(len(weights), bool)
        for place in places:
            covered[place : place + n] = True
        return float(weights[covered].sum() / weights.sum())


def _rarity(hashes: U64, offsets: I64) -> NDArray[np.float32]:
    """The information of each word of each item: log(1 + items / items that hold it)."""
    item = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    word = np.unique(hashes, return_inverse=True)[1].astype(np.int64)
    once = np.unique(word * (len(offsets) - 1) + item)
    count = np.bincount(once // max(1, len(offsets) - 1), minlength=int(word.max(initial=-1)) + 1)
    return np.log1p((len(offsets) - 1) / count)[word].astype(np.float32)


def _better(best: dict[int, Overlap], found: Overlap) -> None:
    held: Any = best.get(found.text)
    if held is None or (found.share, -found.item) > (held.share, -held.item):
        best[found.text] = found
