"""The similarity filter decides as a full scan with the original's ROUGE-L does."""

from __future__ import annotations

import random

import pytest
from rouge_score.rouge_scorer import RougeScorer

from tuneloop.neighbours.similar import Similar, common_length, f_measure, rouge_l, rouge_tokens

WORDS = [
    "write",
    "a",
    "story",
    "about",
    "the",
    "cat",
    "and",
    "list",
    "of",
    "three",
    "ways",
    "to",
    "make",
    "bread",
    "with",
    "no",
    "milk",
    "for",
    "my",
    "friend",
    "who",
    "likes",
    "tea",
]


def texts(count: int, seed: int) -> list[str]:
    """Sentences of few words with many near repeats: word swapped, dropped, doubled, moved."""
    rng = random.Random(seed)
    made: list[str] = []
    for _ in range(count):
        if made and rng.random() < 0.6:
            words = rng.choice(made).split()
            for _ in range(rng.randrange(1, 5)):
                at = rng.randrange(len(words))
                kind = rng.randrange(4)
                if kind == 0:
                    words[at] = rng.choice(WORDS)
                elif kind == 1 and len(words) > 1:
                    del words[at]
                elif kind == 2:
                    words.insert(at, rng.choice(words))
                else:
                    words.insert(rng.randrange(len(words)), words.pop(at))
        else:
            words = [rng.choice(WORDS) + rng.choice(("", "", "x", "y")) for _ in range(rng.randrange(1, 25))]
        made.append(" ".join(words))
    return made


def test_rouge_l_is_that_of_the_package() -> None:
    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    some = [*texts(60, 1), "", "...", "Ünïcode Wörds 12", "UPPER lower-case don't"]
    for one in some:
        for two in some:
            assert rouge_l(one, two) == scorer.score(one, two)["rougeL"].fmeasure


@pytest.mark.parametrize(("threshold", "seed"), [(0.7, 1), (0.7, 2), (0.5, 3), (0.9, 4), (1.0, 5)])
def test_decisions_are_those_of_the_full_scan(threshold: float, seed: int) -> None:
    index = Similar(threshold)
    pool: list[list[str]] = []
    hits = 0
    for text in texts(700, seed):
        tokens = rouge_tokens(text)
        scan = (
            i for i, held in enumerate(pool)
            if f_measure(common_length(held, tokens), len(held), len(tokens)) > threshold
        )  # fmt: skip
        wanted = next(scan, None)
        found = index.find(text)
        assert (found and found[0]) == wanted or (found is not None and found[0] == wanted == 0)
        hits += wanted is not None
        if wanted is None or seed % 2:
            index.add(text)
            pool.append(tokens)
    assert hits > 50 or threshold == 1.0
    assert index.compared < 0.5 * 700 * len(pool) / 2


def test_before_looks_at_the_first_texts_only() -> None:
    index = Similar()
    for text in ("write a poem about bread", "list three ways to make tea"):
        index.add(text)
    assert index.find("list three ways to make tea")[0] == 1  # type: ignore[index]
    assert index.find("list three ways to make tea", before=1) is None
