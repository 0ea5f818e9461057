"""How varied the rows are beside the seeds: topics, opening words, entropy of n-grams, self-BLEU."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tuneloop.text import ngrams, words

# Self-BLEU is quadratic in what it looks at; the literature takes samples of this size.
SAMPLE = 300
TOPICS = 12
LEAST_FOR_TOPICS = 40


def report(made: Sequence[str], seeds: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """The same measures for both, on samples of equal size, so that the numbers can be compared."""
    size = min([SAMPLE, len(made), *([len(seeds)] if seeds else [])])
    return {
        "sample": size,
        "generated": measures(made, size, seed),
        "seeds": measures(seeds, size, seed) if seeds else None,
        "topics": topics(made, seeds, seed),
    }


def measures(texts: Sequence[str], size: int, seed: int) -> dict[str, Any]:
    """distinct_n: distinct n-grams / n-grams. entropy_n in bits. self_bleu: BLEU-4 of each text against the others."""
    chosen = random.Random(seed).sample(list(texts), size)
    tokens = [words(text) for text in chosen]
    lengths = sorted(len(row) for row in tokens) or [0]
    found: dict[str, Any] = {"n": len(texts), "words_median": lengths[len(lengths) // 2]}
    for n in (1, 2, 3):
        counts = Counter(gram for row in tokens for gram in ngrams(row, n))
        total = sum(counts.values())
        found[f"distinct_{n}"] = round(len(counts) / total, 4) if total else None
        found[f"entropy_{n}"] = (
            round(-sum(c / total * math.log2(c / total) for c in counts.values()), 3) if total else None
        )
    found["self_bleu"] = self_bleu(tokens)
    found["openings"] = Counter(opening(row) for row in tokens if row).most_common(15)
    return found


def opening(tokens: Sequence[str]) -> str:
    """The word that says what to do: the first one that is no courtesy."""
    courtesy = {"please", "can", "could", "would", "you", "i", "want", "to", "need", "kindly"}
    return next((token for token in tokens if token not in courtesy), tokens[0])


def self_bleu(rows: Sequence[Sequence[str]]) -> float | None:
    """Mean BLEU-4 (Papineni et al. 2002; one added to each count above unigrams) of each row against all others."""
    if len(rows) < 2:
        return None
    grams = [[Counter(ngrams(list(row), n)) for n in range(1, 5)] for row in rows]
    # The most that any row has of each gram, and the most that any other has where it is the row itself.
    best: list[dict[Any, tuple[int, int, int]]] = [{} for _ in range(4)]
    for index, counts in enumerate(grams):
        for n, counter in enumerate(counts):
            for gram, count in counter.items():
                first, owner, second = best[n].get(gram, (0, -1, 0))
                entry = (count, index, first) if count > first else (first, owner, max(second, count))
                best[n][gram] = entry
    scores = [_bleu(index, grams[index], best, rows) for index in range(len(rows))]
    return round(sum(scores) / len(scores), 4)


def _bleu(index: int, counts: list[Counter[Any]], best: list[dict[Any, tuple[int, int, int]]], rows: Any) -> float:
    logs = 0.0
    for n, counter in enumerate(counts):
        matched = 0
        for gram, count in counter.items():
            first, owner, second = best[n][gram]
            matched += min(count, second if owner == index else first)
        smooth = 1 if n else 0
        total = sum(counter.values()) + smooth
        if matched + smooth == 0 or total == 0:
            return 0.0
        logs += math.log((matched + smooth) / total) / 4
    length = len(rows[index])
    nearest = min((abs(len(row) - length), len(row)) for at, row in enumerate(rows) if at != index)[1]
    penalty = 0.0 if length >= nearest else 1 - nearest / max(1, length)
    return math.exp(logs + penalty)


def topics(made: Sequence[str], seeds: Sequence[str], seed: int) -> list[dict[str, Any]] | None:
    """Clusters of all prompts, named by their weightiest words, with the count on each side; None for too few rows."""
    texts = [*made, *seeds]
    if len(texts) < LEAST_FOR_TOPICS:
        return None
    import numpy as np
    from sklearn.cluster import MiniBatchKMeans
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(stop_words="english", min_df=2, max_features=5000)
    try:
        matrix = vectorizer.fit_transform(texts)
    except ValueError:  # nothing but stop words
        return None
    count = min(TOPICS, matrix.shape[1], len(texts) // 10)
    model = MiniBatchKMeans(count, random_state=seed, n_init=3).fit(matrix)
    names = vectorizer.get_feature_names_out()
    found = []
    for cluster in range(count):
        members = np.flatnonzero(model.labels_ == cluster)
        top = np.argsort(-model.cluster_centers_[cluster])[:4]
        mine = int((members < len(made)).sum())
        found.append({"words": [str(names[i]) for i in top], "generated": mine, "seeds": int(len(members) - mine)})
    return sorted(found, key=lambda topic: -topic["generated"])
