"""Text metrics against the packages whose numbers people publish, and against hand-made cases."""

from __future__ import annotations

import time

import pytest

from tuneloop import metrics
from tuneloop.errors import UsageError
from tuneloop.metrics.text import rouge_l

PAIRS = [
    ("the cat sat on mat", "the cat sat on the mat"),
    ("Hello, there! You're 3rd.", "hello there you are third"),
    ("", "something"),
    ("a b c d e", "e d c b a"),
    ("It is a well-known fact that 7 * 6 = 42", "7 times 6 is 42, a well known fact"),
]


def test_rouge_l_is_that_of_rouge_score() -> None:
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rougeL"], use_stemmer=False)
    for answer, expected in PAIRS:
        assert rouge_l(answer, expected) == pytest.approx(scorer.score(expected, answer)["rougeL"].fmeasure)
    assert rouge_l("Столица Франции Париж", "Париж столица Франции") == pytest.approx(2 / 3)


def test_bleu_and_chrf_are_those_of_sacrebleu() -> None:
    import sacrebleu

    answers, expected = [a for a, _ in PAIRS], [e for _, e in PAIRS]
    found = metrics.corpus("bleu", answers, expected)
    assert found.value == pytest.approx(sacrebleu.corpus_bleu(answers, [expected]).score / 100)
    assert 0 <= found.low < found.value < found.high <= 1 and "version:" in found.signature
    chrf = metrics.corpus("chrf", answers, expected)
    assert chrf.value == pytest.approx(sacrebleu.corpus_chrf(answers, [expected]).score / 100)
    row = metrics.text_metric("bleu")("the cat sat on mat", "the cat sat on the mat")
    assert row == pytest.approx(sacrebleu.sentence_bleu("the cat sat on mat", ["the cat sat on the mat"]).score / 100)


@pytest.mark.parametrize(
    ("name", "answer", "expected", "score"),
    [
        ("exact_match", "  Card  Lost\n", "card lost", 1.0),
        ("exact_match", "card lost.", "card lost", 0.0),
        ("numeric", "So she has $1,234.50 left", "... #### 1234.5", 1.0),
        ("numeric", "#### 18\nThat took 3 steps", "#### 18", 1.0),
        ("numeric", "#### none, of 12 and 18", "18", 0.0),
        ("numeric", "first 3 #### then", "3", 1.0),
        ("numeric", "no idea", "#### 18", 0.0),
        ("numeric", "-4", "4", 0.0),
        ("json", ' {"a": [1, 2]} ', "", 1.0),
        ("json", '{"a": NaN}', "", 0.0),
        ("json", "```json\n{}\n```", "", 0.0),
        ("json", "[" * 100_000, "", 0.0),
        ("regex:^[A-D]$", "B", "", 1.0),
        ("regex:^[A-D]$", "B, because", "", 0.0),
        ("similarity", "Kitten", "kitten", 1.0),
        ("similarity", "abcd", "abce", 0.75),
    ],
)
def test_text_metrics(name: str, answer: str, expected: str, score: float) -> None:
    assert metrics.text_metric(name)(answer, expected) == pytest.approx(score)


def test_a_pattern_that_explodes_is_bounded(capsys: pytest.CaptureFixture[str]) -> None:
    started = time.monotonic()
    found = metrics.text_metric("regex:^(a|aa)+$")  # 2^n ways to split a run of n letters
    assert found("a" * 300 + "b", "") == 0.0
    assert found("a" * 300 + "b", "") == 0.0
    assert time.monotonic() - started < 30
    assert capsys.readouterr().err.count("took over") == 1


def test_unknown_metrics_and_broken_patterns_are_coded() -> None:
    with pytest.raises(UsageError, match="rouge_l"):
        metrics.text_metric("rougel")
    with pytest.raises(UsageError, match="not a regular expression"):
        metrics.text_metric("regex:(")
