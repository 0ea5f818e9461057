"""Rows that are left out on request: each rule gives the measured value, so that a threshold can be argued about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

from tuneloop.config.data import FilterConfig
from tuneloop.data.asked import asked_and_answered
from tuneloop.data.rows import Refused
from tuneloop.language import language
from tuneloop.records import Example
from tuneloop.text import normalise

REFUSAL = re.compile(
    r"\A(?:i['’]?m (?:very |so )?sorry|i am sorry|sorry|unfortunately|i apologi[sz]e|apologies)?[,.!]? ?(?:but )?"
    r"(?:(?:i|we) (?:can ?not|can['’]?t|am (?:not able|unable)|['’]m (?:not able|unable)|won['’]?t|will not)\b"
    r"|i['’]m (?:not able|unable)\b|(?:as|being) an? (?:ai|artificial|language model|large language)"
    r"|(?:it is|it['’]s) (?:not possible|impossible) for me)",
    re.IGNORECASE,
)
STOP_WORDS = frozenset(("the", "be", "to", "of", "and", "that", "have", "with"))
LOOP_WORDS = 40


def check(example: Example, config: FilterConfig) -> None:
    """Raises Refused for a row that a rule leaves out; labels the language in `meta` where that is asked for."""
    asked, answer = asked_and_answered(example)
    if config.answer_equals_prompt and answer and normalise(asked) == normalise(answer):
        raise Refused("answer_equals_prompt", field="answer", value=answer, cure="write an answer or delete the row")
    if config.repetition:
        _repetition(answer or asked)
    if config.refusals and (found := REFUSAL.match(answer.strip())):
        raise Refused("refusal", field="answer", value=found[0], cure="none needed; filter.refusals leaves it out")
    if config.corpus and example.kind == "text":
        _corpus(example.text or "")
    if config.languages or config.label_language:
        _language(example, asked, answer, config)


def _repetition(text: str) -> None:
    """Gopher's shares of repeated lines and n-grams, on answers: they find a teacher that looped."""
    words = text.split()
    if len(words) < LOOP_WORDS:
        if len(words) >= 8 and len(set(words)) <= len(words) / 8:
            _refuse("repetition", f"{len(set(words))} different of {len(words)} words")
        return
    lines = [line.strip() for line in text.splitlines() if len(line.strip()) > 3]
    if len(lines) >= 4 and (share := 1 - len(set(lines)) / len(lines)) > 0.3:
        _refuse("repetition", f"{share:.2f} of the lines are repeated")
    size = sum(map(len, words))
    for n, most in ((2, 0.20), (3, 0.18), (4, 0.16)):
        gram, count = Counter(zip(*(words[k:] for k in range(n)), strict=False)).most_common(1)[0]
        if count > 2 and (share := count * sum(map(len, gram)) / size) > most:
            _refuse("repetition", f"'{' '.join(gram)}' is {share:.2f} of the text")
    for n, most in ((5, 0.15), (8, 0.12), (10, 0.10)):
        if (share := _repeated(words, n) / size) > 3 * most:  # lists and code repeat more than prose
            _refuse("repetition", f"repeated {n}-grams are {share:.2f} of the text")


def _repeated(words: list[str], n: int) -> int:
    """Characters of the words that stand in an n-gram seen before."""
    seen: set[tuple[str, ...]] = set()
    covered = 0
    free = 0
    for start in range(len(words) - n + 1):
        gram = tuple(words[start : start + n])
        if gram in seen:
            covered += sum(len(word) for word in words[max(start, free) : start + n])
            free = start + n
        seen.add(gram)
    return covered


def _refuse(reason: str, value: str) -> None:
    raise Refused(reason, field="answer", value=value, cure="none needed; see data.filter")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


# (rule, smallest, largest, measure of (text, words, lines)); sources of the numbers in docs/data.md
Measure = Callable[[str, list[str], list[str]], float]
CORPUS: tuple[tuple[str, float, float, Measure], ...] = (
    ("words (Gopher)", 50, 100_000, lambda t, w, n: len(w)),
    ("mean word length (Gopher)", 3, 10, lambda t, w, n: _share(sum(map(len, w)), len(w))),
    ("'#' and '...' a word (Gopher)", 0, 0.1, lambda t, w, n: _share(t.count("#") + t.count("..."), len(w))),
    ("bulleted lines (Gopher)", 0, 0.9, lambda t, w, n: _share(sum(x.lstrip()[:1] in "-*•" for x in n), len(n))),
    ("lines that trail off (Gopher)", 0, 0.3, lambda t, w, n: _share(sum(x.endswith(("...", "…")) for x in n), len(n))),
    ("words with a letter (Gopher)", 0.8, 1, lambda t, w, n: _share(sum(any(map(str.isalpha, x)) for x in w), len(w))),
    ("stop words (Gopher)", 2, 1e9, lambda t, w, n: len(STOP_WORDS & {x.lower() for x in w})),
    ("lorem ipsum (C4)", 0, 0, lambda t, w, n: float("lorem ipsum" in t.lower())),
    ("curly brackets (C4)", 0, 0, lambda t, w, n: float("{" in t)),
    ("lines with 'javascript' (C4)", 0, 0, lambda t, w, n: float("javascript" in t.lower())),
    (
        "lines with an end (FineWeb)",
        0.12,
        1,
        lambda t, w, n: _share(sum(x.endswith(tuple('.!?"”')) for x in n), len(n)),
    ),
    ("lines of at most 30 characters (FineWeb)", 0, 0.67, lambda t, w, n: _share(sum(len(x) <= 30 for x in n), len(n))),
    ("characters of repeated lines (FineWeb)", 0, 0.01, lambda t, w, n: _share(_repeats(n), len(t))),
    ("line breaks a word (FineWeb)", 0, 0.3, lambda t, w, n: _share(t.count("\n"), len(w))),
)


def _repeats(lines: list[str]) -> int:
    return sum(len(line) * (count - 1) for line, count in Counter(lines).items())


def _corpus(text: str) -> None:
    words, lines = text.split(), [line.strip() for line in text.splitlines() if line.strip()]
    for name, low, high, measure in CORPUS:
        value = measure(text, words, lines)
        if not low <= value <= high:
            bound = f"at least {low:g}" if value < low else f"at most {high:g}"
            raise Refused("corpus_rule", field=name, value=f"{value:.3g} ({bound})", cure="none needed; filter.corpus")


def _language(example: Example, asked: str, answer: str, config: FilterConfig) -> None:
    found = {"prompt": language(asked), "answer": language(answer)}
    example.meta = {**example.meta, "language": found}
    strange = [code for code in found.values() if code and code not in config.languages]
    if config.languages and strange:
        raise Refused(
            "language", field="language", value=strange[0], cure="add it to filter.languages, or leave the row out"
        )
