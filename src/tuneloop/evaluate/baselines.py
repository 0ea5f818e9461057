"""What a classifier without a language model reaches on the same rows."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

from tuneloop.evaluate.split import drawn
from tuneloop.records import Example, read_examples
from tuneloop.text import in_half


@cache
def label_baselines(data: str, limit: int | None, seed: int, half: str) -> dict[str, float]:
    """Majority label, and TF-IDF with logistic regression, both from the train split, on the test rows of that draw and
    half."""
    train = [e for e in read_examples(Path(data), "train") if e.kind == "classification"]
    rows = [e for e in drawn(read_examples(Path(data), "test"), limit, seed) if in_half(e.group or e.id, half)]
    test = [e for e in rows if e.kind == "classification"]
    labels = [str(e.label) for e in train]
    gold = [str(e.label) for e in test]
    if not labels or not gold:
        return {}
    top = Counter(labels).most_common(1)[0][0]
    found = {"majority label": sum(g == top for g in gold) / len(gold)}
    if len(set(labels)) > 1:
        found["TF-IDF + logistic regression"] = _linear(
            [_text(e) for e in train], labels, [_text(e) for e in test], gold
        )
    return found


def _text(example: Example) -> str:
    return " ".join(str(m["content"]) for m in (example.messages or [])[:-1])


def _linear(texts: list[str], labels: list[str], asked: list[str], gold: list[str]) -> float:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    features = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\b\w+\b")
    # Logistic loss by stochastic gradient: seconds for 77 labels, where L-BFGS takes a minute.
    model = make_pipeline(features, SGDClassifier(loss="log_loss", alpha=1e-5, max_iter=30, random_state=0))
    try:
        model.fit(texts, labels)
    except ValueError:  # nothing but empty texts
        return 0.0
    return float(model.score(asked, gold))
