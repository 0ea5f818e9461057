"""Text that is compared: normal forms, keys for duplicates and groups, n-grams. Never used as content."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterator

SPACE = re.compile(r"\s+")
WORD = re.compile(r"\w+", re.UNICODE)


def collapse(text: str) -> str:
    """NFC with every run of white space as one blank and none at the ends; case and signs stay."""
    return SPACE.sub(" ", unicodedata.normalize("NFC", text)).strip()


def normalise(text: str) -> str:
    """The form in which two prompts are 'the same': NFKC, folded case, single blanks."""
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


def shorten(text: str, limit: int = 80) -> str:
    """One line of at most `limit` characters for messages."""
    line = SPACE.sub(" ", text).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"
