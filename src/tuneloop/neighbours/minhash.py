"""Near-duplicates: character 5-grams, MinHash in bands to find candidates, exact Jaccard to decide.

The code points of all texts of a batch stand in one array, so that a hash is a few passes over it. A batch of texts is
`(values, offsets)`: the distinct hashed 5-grams of text i are `values[offsets[i]:offsets[i + 1]]`, sorted.

    n texts, G grams in all, R rows (of a data set)
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

GRAM = 5
# 1 - (1 - s^5)^25 finds 0.99 of the pairs at s = 0.7 and 0.9999 at 0.8; Jaccard then decides.
BANDS, DEPTH = 25, 5
BLOCK = 1 << 16  # grams hashed at a time: they stay in the second-level cache
# In a bucket each text meets its first and its last predecessors, so a bucket costs linear time, and what an old
# text meets does not change when texts are added.
LEADERS, PREVIOUS = 4, 4
PAIR_GRAMS = 1 << 21  # grams compared at a time

U32 = NDArray[np.uint32]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

_PRIME = np.uint64(0x100000001B3)
_MIX = np.uint64(0x9E3779B97F4A7C15)
_random = np.random.default_rng(0x7E57)
_FACTORS: U32 = _random.integers(0, 1 << 31, BANDS * DEPTH, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
_SHIFTS: U32 = _random.integers(0, 1 << 32, BANDS * DEPTH, dtype=np.uint32)


def mix(values: U64) -> U64:
    """Spreads what differs in the low bits over all of them."""
    values = (values ^ (values >> np.uint64(29))) * _MIX
    return values ^ (values >> np.uint64(32))


def shingles(texts: Sequence[str]) -> tuple[U32, I64]:
    """(values [G], offsets [n + 1]) of a batch; a text of fewer than five characters is one gram, so none is empty."""
    padded = [text if len(text) >= GRAM else text.ljust(GRAM, "\0") for text in texts]
    lengths = np.fromiter((len(text) for text in padded), np.int64, len(padded))
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    if not len(codes):
        return np.zeros(0, np.uint32), np.zeros(1, np.int64)
    grams = codes[: len(codes) - GRAM + 1].copy()
    for step in range(1, GRAM):
        grams *= _PRIME
        grams += codes[step : len(codes) - GRAM + 1 + step]
    inside = np.ones(len(codes), bool)
    ends = np.cumsum(lengths)
    for back in range(1, GRAM):
        inside[ends - back] = False
    owner = np.repeat(np.arange(len(padded), dtype=np.uint64), lengths - GRAM + 1)
    hashed = mix(grams[inside[: len(grams)]]) >> np.uint64(32)
    both = np.sort((owner << np.uint64(32)) | hashed)
    both = both[np.append(True, both[1:] != both[:-1])]
    offsets = np.searchsorted(both >> np.uint64(32), np.arange(len(padded) + 1, dtype=np.uint64))
    return both.astype(np.uint32), offsets.astype(np.int64)


def bands(values: U32, offsets: I64) -> U32:
    """[n, 25] keys: two texts with the Jaccard similarity s share at least one with 1 - (1 - s^5)^25."""
    count = len(offsets) - 1
    out = np.empty((count, BANDS), np.uint32)
    start = 0
    while start < count:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + BLOCK, "right")) - 1)
        out[start:stop] = _band_block(values[offsets[start] : offsets[stop]], offsets[start:stop] - offsets[start])
        start = stop
    return out


def _band_block(values: U32, starts: I64) -> U32:
    buffer = np.empty_like(values)
    keys = np.empty((len(starts), BANDS), np.uint32)
    for band in range(BANDS):
        key = np.full(len(starts), band, np.uint64)
        for row in range(band * DEPTH, (band + 1) * DEPTH):
            np.multiply(values, _FACTORS[row], out=buffer)
            np.add(buffer, _SHIFTS[row], out=buffer)
            key = key * _PRIME + np.minimum.reduceat(buffer, starts)
        keys[:, band] = mix(key) >> np.uint64(32)
    return keys


def candidates(keys: NDArray[Any]) -> tuple[I64, I64]:
    """Pairs (earlier, later) of positions with equal keys; in a large bucket with the first and last predecessors."""
    order = np.argsort(keys, kind="stable").astype(np.int64)
    held = keys[order]
    fresh = np.ones(len(held), bool)
    fresh[1:] = held[1:] != held[:-1]
    starts = np.flatnonzero(fresh)
    depth = np.arange(len(held)) - np.repeat(starts, np.diff(np.append(starts, len(held))))
    earlier, later = [], []
    for back in range(1, PREVIOUS + 1):
        at = np.flatnonzero(depth >= back)
        earlier.append(order[at - back])
        later.append(order[at])
    for first in range(LEADERS):
        at = np.flatnonzero(depth > first + PREVIOUS)
        earlier.append(order[at - depth[at] + first])
        later.append(order[at])
    return np.concatenate(earlier), np.concatenate(later)


def combine(one: NDArray[Any], two: NDArray[Any]) -> U64:
    """Keys that are equal where both are."""
    return mix(one.astype(np.uint64) * _PRIME ^ mix(two.astype(np.uint64) + _MIX))


def jaccard(earlier: I64, later: I64, grams: Callable[[int], U32]) -> NDArray[np.float32]:
    """The exact similarity of each pair; `grams(i)` gives the distinct grams of text i."""
    out = np.zeros(len(earlier), np.float32)
    for start, stop, sets in _pair_blocks(earlier, later, grams):
        sizes = np.fromiter((len(s) for s in sets), np.int64, len(sets))
        owner = np.repeat(np.arange(len(sets), dtype=np.uint64) // np.uint64(2), sizes)
        both = np.sort((owner << np.uint64(32)) | np.concatenate(sets))
        shared = np.bincount(
            (both[1:][both[1:] == both[:-1]] >> np.uint64(32)).astype(np.int64), minlength=stop - start
        )
        out[start:stop] = shared / (sizes[0::2] + sizes[1::2] - shared)
    return out


def _pair_blocks(earlier: I64, later: I64, grams: Callable[[int], U32]) -> Iterator[tuple[int, int, list[U32]]]:
    start, held, total = 0, list[U32](), 0
    for place, (one, two) in enumerate(zip(earlier.tolist(), later.tolist(), strict=True)):
        pair = [grams(one), grams(two)]
        held += pair
        total += len(pair[0]) + len(pair[1])
        if total >= PAIR_GRAMS:
            yield start, place + 1, held
            start, held, total = place + 1, [], 0
    if held:
        yield start, len(earlier), held


class GramFile:
    """Gram sets of many texts in one file, read one at a time: what stays in memory is where each begins."""

    def __init__(self, path: Path) -> None:
        self.path, self.offsets = path, np.zeros(1, np.int64)
        self.file: int | None = None

    def write(self, batches: Iterable[tuple[U32, I64]]) -> None:
        sizes = []
        with open(self.path, "wb") as file:
            for values, offsets in batches:
                file.write(values.tobytes())
                sizes.append(np.diff(offsets).astype(np.uint32))
        lengths = np.concatenate(sizes) if sizes else np.zeros(0, np.uint32)
        self.offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=self.offsets[1:])

    def __call__(self, index: int) -> U32:
        if self.file is None:
            self.file = os.open(self.path, os.O_RDONLY)
        start, stop = int(self.offsets[index]), int(self.offsets[index + 1])
        return np.frombuffer(os.pread(self.file, 4 * (stop - start), 4 * start), np.uint32)

    def close(self) -> None:
        if self.file is not None:
            os.close(self.file)
            self.file = None
