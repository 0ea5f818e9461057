"""Text that is compared: normal forms, keys for duplicates and groups, n-grams. Never used as content."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

SPACE = re.compile(r"\s+")
HALVES = 20240613  # any number, for ever
WORD = re.compile(r"\w+", re.UNICODE)


def collapse(text: str) -> str:
    """NFC with every run of white space as one blank and none at the ends; case and signs stay."""
    if text.isascii():
        return " ".join(text.split())
    return SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


def normalise(text: str) -> str:
    """The form in which two prompts are 'the same': NFKC, folded case, single blanks."""
    if text.isascii():
        return " ".join(text.lower().split())
    return SPACE.sub(" ", unicodedata.normalize("NFKC", text).casefold()).strip()


def key(*parts: str) -> str:
    """Hash of the parts in order, 32 hexadecimal digits; the parts cannot run into one another."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(f"{len(data)}:".encode())
        digest.update(data)
    return digest.hexdigest()[:32]


def group_key(prompt: str) -> str:
    """Equal for prompts that differ only in case, width or white space."""
    return key(normalise(prompt))


def duplicate_key(prompt: str, answer: str) -> str:
    """Equal for rows that differ only in white space and Unicode composition; case counts, as in code it does."""
    return key(collapse(prompt), collapse(answer))


NUMBER = re.compile(r"[0-9]+(?:[.,:/][0-9]+)*")
# What turns a sentence into its contrary, or counts: two prompts that differ here ask for different things.
DECISIVE = frozenset(
    word
    for line in (
        "no not never none nobody nothing neither nor without cannot except unless least most fewest false true",
        "nicht kein keine keinen nie ohne ni pas jamais sans aucun sin nunca ningun",
        "zero one two three four five six seven eight nine ten eleven twelve twenty hundred thousand first second",
        "third last before after above below more less increase decrease maximum minimum highest lowest",
    )
    for word in line.split()
)
WRAPPER = re.compile(r"\A\s*(?:question|q)\s*:\s*|\s*(?:answer|a)\s*:\s*\Z", re.IGNORECASE)


def decisive(text: str) -> str:
    """Numbers, negations and the like of a normal form, in order: rows that differ here ask for other things."""
    found = NUMBER.findall(text)
    found += [word for word in WORD.findall(text) if word in DECISIVE]
    return " ".join([*found, "n't" * (text.count("n't") + text.count("n\u2019t"))])


def bare(prompt: str) -> str:
    """A prompt without the 'Question:' and 'Answer:' that only lay it out."""
    return WRAPPER.sub("", prompt)


def words(text: str) -> list[str]:
    """The words of the normal form, without punctuation."""
    return WORD.findall(normalise(text))


def ngrams(tokens: list[str], n: int) -> Iterator[tuple[str, ...]]:
    """Every run of `n` tokens in order; none when there are fewer."""
    for start in range(len(tokens) - n + 1):
        yield tuple(tokens[start : start + n])


def share(value: str, seed: int) -> float:
    """A number in [0, 1) fixed by value and seed: the same row falls on the same side whatever stands beside it."""
    return int(key(str(seed), value)[:13], 16) / 16**13


def in_half(value: str, half: str) -> bool:
    """Whether what `value` names is in the half: 'analysis', 'report', or 'all'. The halves never change."""
    return half == "all" or (half == "analysis") == (share(value, HALVES) < 0.5)


def shorten(text: str, limit: int = 80) -> str:
    """One line of at most `limit` characters for messages."""
    line = SPACE.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
