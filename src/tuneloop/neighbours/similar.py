"""Is a text too close, by ROUGE-L, to any of a growing pool? The decisions of the full scan in near-linear time.

Self-Instruct compares each candidate with every text of the pool. Here an inverted index proposes the few that can
reach the threshold, and only those are compared. Nothing is approximate. With F = 2 LCS / (m + n) for texts of m and n
tokens, F > t needs LCS >= o = floor(t (m + n) / 2) + 1, and LCS is at most the number of shared tokens (with
multiplicity). So, tokens of each text sorted from rare to frequent in one fixed order,

- lengths: n lies between m t / (2 - t) and m (2 - t) / t;
- prefixes (Chaudhuri et al. 2006): texts that share o tokens share one among the first m - o + 1 of the one and the
  first n - o + 1 of the other;
- bitmaps (Sandes et al. 2017): each token flips one of BITS bits, so two texts whose bits differ in d places differ in
  at least d tokens and share at most (m + n - d) / 2.

What is left is decided by the longest common subsequence itself, bit-parallel (Hyyro 2004). The order is drawn anew
from the counts whenever the pool has doubled, which adds a constant factor in all.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence

import numpy as np

# The tokens of the rouge-score package without stemming: lower case, letters and digits of ASCII; so are other scripts'
# letters lost, and a text without any token is like no other.
_TOKEN = re.compile(r"[a-z0-9]+")
_UNKNOWN = 1 << 40
BITS = 256  # several times the tokens of a usual prompt, so that few of them meet in a bit


def rouge_tokens(text: str) -> list[str]:
    return _TOKEN.findall(text.lower())


def common_length(one: Sequence[object], two: Sequence[object]) -> int:
    """Length of the longest common subsequence, in len(two) steps on integers of len(one) bits."""
    places: dict[object, int] = {}
    for place, token in enumerate(one):
        places[token] = places.get(token, 0) | (1 << place)
    return _common(places, len(one), two)


def _common(places: dict[object, int], length: int, two: Sequence[object]) -> int:
    full = (1 << length) - 1
    row = full
    for token in two:
        found = places.get(token)
        if found:
            hit = row & found
            row = ((row + hit) | (row - hit)) & full
    return length - row.bit_count()


def f_measure(common: int, one: int, two: int) -> float:
    """ROUGE-L F as rouge-score computes it, in the same order of operations, so that ties fall alike."""
    if not common:
        return 0.0
    precision, recall = common / two, common / one
    return 2 * precision * recall / (precision + recall)


def rouge_l(one: str, two: str) -> float:
    """ROUGE-L F of two texts, from 0 to 1."""
    a, b = rouge_tokens(one), rouge_tokens(two)
    return f_measure(common_length(a, b), len(a), len(b))


class Similar:
    """`find(text)` gives the first text added whose ROUGE-L F with it exceeds the threshold, and its F."""

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self.compared = 0
        self._ids: dict[str, int] = {}
        self._counts: list[int] = []
        self._texts: list[list[int]] = []
        self._sorted_from = 0
        self._rank: list[int] = []
        self._lists: dict[int, array[int]] = {}
        self._lengths = array("i")
        self._bits = array("Q")  # BITS / 64 numbers a text

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        tokens = [self._ids.setdefault(token, len(self._ids)) for token in rouge_tokens(text)]
        self._counts += [0] * (len(self._ids) - len(self._counts))
        for token in set(tokens):
            self._counts[token] += 1
        self._texts.append(tokens)
        self._lengths.append(len(tokens))
        self._bits.frombytes(_bitmap(tokens))
        if len(self._texts) >= 2 * max(64, self._sorted_from):
            self._resort()
        else:
            self._index(len(self._texts) - 1)

    def find(self, text: str, *, before: int | None = None) -> tuple[int, float] | None:
        """Among the first `before` texts only, where given."""
        words = rouge_tokens(text)
        if not words:
            return None
        # A token the pool does not know gets a number of its own below zero: rarer than any, matched by none.
        new: dict[str, int] = {}
        tokens = [self._ids.get(word, -1) for word in words]
        tokens = [new.setdefault(w, -len(new) - 1) if t < 0 else t for w, t in zip(words, tokens, strict=True)]
        places: dict[object, int] = {}
        for place, token in enumerate(tokens):
            places[token] = places.get(token, 0) | (1 << place)
        for index in self._candidates(tokens):
            if before is not None and index >= before:
                break
            self.compared += 1
            other = self._texts[index]
            found = f_measure(_common(places, len(tokens), other), len(other), len(tokens))
            if found > self.threshold:
                return int(index), found
        return None

    def _least(self, m: int, n: int) -> int:
        """Shared tokens without which F cannot exceed the threshold; one less than exact, for rounding."""
        return max(1, int(self.threshold * (m + n) / 2))

    def _prefix(self, length: int) -> int:
        """Rare tokens, one of which every partner shares: for the shortest partner, where least is needed."""
        shortest = int(length * self.threshold / (2 - self.threshold))
        return max(0, length - self._least(length, shortest) + 1)

    def _order(self, tokens: list[int]) -> list[tuple[int, int]]:
        """(rank, occurrence) pairs, rare first: the second 'the' of a text matches the second 'the' of another."""
        size = len(self._rank)
        # Tokens newer than the order come first; those the pool does not know (below zero) before all.
        held = self._rank
        ranks = sorted(held[t] if 0 <= t < size else -1 - t if t >= 0 else t - _UNKNOWN for t in tokens)
        return _numbered(ranks)

    def _index(self, index: int) -> None:
        tokens = self._texts[index]
        for rank, nth in self._order(tokens)[: self._prefix(len(tokens))]:
            self._lists.setdefault(_key(rank, nth), array("i")).append(index)

    def _resort(self) -> None:
        counts = np.array(self._counts, dtype=np.int64)
        ranks = np.empty(len(counts), dtype=np.int64)
        ranks[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        self._rank = ranks.tolist()
        self._lists = {}
        self._sorted_from = len(self._texts)
        for index in range(len(self._texts)):
            self._index(index)

    def _candidates(self, tokens: list[int]) -> list[int]:
        """Indices in order of those that pass the prefix, length and bitmap filters."""
        m = len(tokens)
        prefix = self._order(tokens)[: self._prefix(m)]
        blocks = [np.frombuffer(held, np.int32) for pair in prefix if (held := self._lists.get(_key(*pair)))]
        if not blocks:
            return []
        index = np.unique(np.concatenate(blocks))
        lengths = np.frombuffer(self._lengths, np.int32)[index]
        bits = np.frombuffer(self._bits, np.uint64).reshape(-1, BITS // 64)[index]
        apart = np.bitwise_count(bits ^ np.frombuffer(_bitmap(tokens), np.uint64)).sum(1, dtype=np.int32)
        shared = np.minimum(np.minimum(m, lengths), (m + lengths - apart) // 2)
        least = np.maximum(1, (self.threshold * (m + lengths) / 2).astype(np.int32))
        return [int(i) for i in index[shared >= least]]


def _numbered(values: Sequence[int]) -> list[tuple[int, int]]:
    """(value, how often it came before): what makes a bag of tokens a set."""
    seen: dict[int, int] = {}
    result = []
    for value in values:
        nth = seen.get(value, 0)
        seen[value] = nth + 1
        result.append((value, nth))
    return result


def _bitmap(tokens: Sequence[int]) -> bytes:
    bits = 0
    for token, nth in _numbered(tokens):
        bits ^= 1 << ((token * 0x9E3779B1 + nth * 0x85EBCA77 >> 16) % BITS)
    return bits.to_bytes(BITS // 8, "little")


def _key(rank: int, nth: int) -> int:
    return (rank << 8) | min(nth, 255)
