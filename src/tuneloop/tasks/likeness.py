"""Likeness of a text to one reference: BLEU, ROUGE-1, ROUGE-2 and ROUGE-L in per cent, as lm-eval 0.4.13 computes them.

ROUGE follows Google's rouge_score (lower case, no stemming, F1), checked against it; writing it out spares nltk.
"""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

WORD = re.compile(r"[^a-z0-9]+")


def likeness(reference: str, text: str) -> dict[str, float]:
    """`bleu`, `rouge1`, `rouge2` and `rougeL` (the summary variant: a line is a sentence)."""
    lines = [[_words(line) for line in side.replace(" . ", ".\n").split("\n") if line] for side in (reference, text)]
    flat = [_words(reference), _words(text)]
    return {
        "bleu": bleu(reference, text),
        "rouge1": _overlap(Counter(flat[0]), Counter(flat[1])),
        "rouge2": _overlap(Counter(pairwise(flat[0])), Counter(pairwise(flat[1]))),
        "rougeL": _lines(lines[0], lines[1]),
    }


def bleu(reference: str, text: str) -> float:
    import sacrebleu

    return float(
        sacrebleu.corpus_bleu(
            [text], [[reference]], smooth_method="exp", force=False, lowercase=False, tokenize="intl",
            use_effective_order=False,
        ).score
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return [word for word in WORD.sub(" ", text.lower()).split() if word]


def _f1(hits: int, wanted: int, said: int) -> float:
    """Harmonic mean of precision and recall in per cent, each divided by at least 1."""
    precision, recall = hits / max(1, said), hits / max(1, wanted)
    return 200 * precision * recall / (precision + recall) if hits else 0.0


def _overlap(wanted: Counter[object], said: Counter[object]) -> float:
    return _f1((wanted & said).total(), wanted.total(), said.total())


def _lines(wanted: list[list[str]], said: list[list[str]]) -> float:
    """Per reference line, the union of its longest common subsequences with every line of the text."""
    m, n = sum(map(len, wanted)), sum(map(len, said))
    if not m or not n:
        return 0.0
    left, hits = [Counter(w for line in side for w in line) for side in (wanted, said)], 0
    for line in wanted:
        for i in sorted({i for other in said for i in _common(line, other)}):
            if left[0][line[i]] > 0 and left[1][line[i]] > 0:
                left[0][line[i]] -= 1
                left[1][line[i]] -= 1
                hits += 1
    return _f1(hits, m, n)


def _common(line: list[str], other: list[str]) -> list[int]:
    """Indices in `line` of a longest common subsequence; on ties the reference's step back comes first."""
    table = [[0] * (len(other) + 1) for _ in range(len(line) + 1)]
    for i, a in enumerate(line, start=1):
        for j, b in enumerate(other, start=1):
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else max(table[i - 1][j], table[i][j - 1])
    found, i, j = [], len(line), len(other)
    while i and j:
        if line[i - 1] == other[j - 1]:
            i, j = i - 1, j - 1
            found.append(i)
        elif table[i][j - 1] > table[i - 1][j]:
            j -= 1
        else:
            i -= 1
    return found
