"""Scores of a written answer against the expected one, each a share in [0, 1]; BLEU and chrF also over a whole set."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import cache
from typing import Any

from tuneloop.console import warn
from tuneloop.errors import UsageError, nearest
from tuneloop.text import normalise, words

TextMetric = Callable[[str, str], float]
# Metrics that are no function of one written answer.
BY_KIND = ("accuracy", "macro_f1", "perplexity")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?|-?\.\d+")
LATIN = re.compile(r"[a-z0-9]+")
# What a user's pattern may cost: characters of the answer that are looked at, seconds a row.
PATTERN_CHARACTERS, PATTERN_SECONDS = 20_000, 0.25
RESAMPLES = 1000


def exact_match(answer: str, expected: str) -> float:
    """Equal but for white space, Unicode width and letter case."""
    return float(normalise(answer) == normalise(expected))


def final_number(text: str) -> Decimal | None:
    """The first number after the last '####' (GSM8K's mark), else the last one in the text; commas are read."""
    found = NUMBER.findall(text.rpartition("####")[2])[:1] if "####" in text else []
    found = found or NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "")) if found else None
    except InvalidOperation:
        return None


def numeric(answer: str, expected: str) -> float:
    """The same final number: 18, $18.00 and '#### 18' are one answer."""
    found, wanted = final_number(answer), final_number(expected)
    return float(found is not None and found == wanted)


def rouge_l(answer: str, expected: str) -> float:
    """F-measure of the longest common subsequence of words, as `rouge_score` without a stemmer has it.

    An expected text without a Latin letter or digit, which that package scores 0, is compared by its Unicode words.
    """
    from rapidfuzz.distance import LCSseq

    latin = bool(LATIN.search(expected.lower()))
    a, b = ((LATIN.findall(t.lower()) if latin else words(t)) for t in (answer, expected))
    if not a or not b:
        return 0.0
    common = LCSseq.similarity(a, b)
    return 2 * common / (len(a) + len(b))


def similarity(answer: str, expected: str) -> float:
    """1 minus the normalised insert-and-delete distance of characters (rapidfuzz `ratio`)."""
    from rapidfuzz import fuzz

    return float(fuzz.ratio(normalise(answer), normalise(expected))) / 100


def valid_json(answer: str, expected: str) -> float:
    """The whole answer is one JSON value; NaN and Infinity, which JSON does not have, are refused."""
    try:
        json.loads(answer, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    return 1.0


def _refuse(name: str) -> None:
    raise ValueError(name)


def bleu(answer: str, expected: str) -> float:
    return _share(_sacre("bleu", True).sentence_score(answer, [expected]).score)


def chrf(answer: str, expected: str) -> float:
    return _share(_sacre("chrf", True).sentence_score(answer, [expected]).score)


def _share(score: float) -> float:
    return min(1.0, max(0.0, float(score) / 100))


@cache
def _sacre(name: str, sentence: bool) -> Any:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

    return BLEU(effective_order=sentence) if name == "bleu" else CHRF()


def matches(pattern: str) -> TextMetric:
    """Whether the pattern is found in the answer; a search that takes too long is no match."""
    import regex

    try:
        compiled = regex.compile(pattern)
    except regex.error as error:
        raise UsageError(
            151, f"not a regular expression: {error}", where=f"eval.metrics: regex:{pattern}", cure="mend the pattern"
        ) from error

    slow: list[str] = []

    def metric(answer: str, expected: str) -> float:
        try:
            return float(compiled.search(answer[:PATTERN_CHARACTERS], timeout=PATTERN_SECONDS) is not None)
        except TimeoutError:
            if not slow:
                warn(f"regex:{pattern} took over {PATTERN_SECONDS} s on an answer; such answers count as no match")
            slow.append(answer)
            return 0.0

    return metric


TEXT_METRICS: dict[str, TextMetric] = {
    "exact_match": exact_match,
    "numeric": numeric,
    "rouge_l": rouge_l,
    "bleu": bleu,
    "chrf": chrf,
    "similarity": similarity,
    "json": valid_json,
}


def text_metric(name: str) -> TextMetric:
    """The metric of that name; 'regex:PATTERN' makes one."""
    kind, mark, pattern = name.partition(":")
    if kind == "regex" and mark:
        return matches(pattern)
    if name not in TEXT_METRICS:
        every = [*BY_KIND, *TEXT_METRICS, "judge", "regex:PATTERN"]
        raise UsageError(150, f"unknown metric '{name}'", where="eval.metrics", cure=nearest(name, every))
    return TEXT_METRICS[name]


@dataclass(frozen=True)
class Corpus:
    """BLEU or chrF of a whole set as a share, its bootstrap interval, and the signature that names the variant."""

    value: float
    error: float
    low: float
    high: float
    signature: str


def corpus(name: str, answers: Sequence[str], expected: Sequence[str]) -> Corpus:
    """`name` is 'bleu' or 'chrf'. The interval is sacrebleu's own over 1,000 resamples of rows, 95 %."""
    metric = _sacre(name, False)
    found = metric.corpus_score(list(answers), [list(expected)], n_bootstrap=RESAMPLES)
    # sacrebleu keeps centre and half-width of its interval on the score, for its own report.
    centre, half = float(getattr(found, "_mean", found.score)), float(getattr(found, "_ci", 0.0))
    low, high = max(0.0, centre - half) / 100, min(100.0, centre + half) / 100
    return Corpus(_share(found.score), half / 196, low, high, str(metric.get_signature()))
