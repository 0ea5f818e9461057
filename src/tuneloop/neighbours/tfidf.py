"""Which texts are near which, by weighted words: neighbours, topics with names, labels that neighbours contradict."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneloop.text import words

BLOCK = 512  # queries compared at once: bounds the dense block of similarities
WORDS_A_TOPIC = 3


def _vectorizer(ngrams: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(
        analyzer="word",
        tokenizer=words,
        token_pattern=None,
        lowercase=False,
        ngram_range=(1, ngrams),
        sublinear_tf=True,
    )


class Index:
    """TF-IDF over single words of `texts`; rows of `matrix` have length 1, or 0 for a text without words."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.vectorizer = _vectorizer(1)
        self.empty = not any(words(t) for t in texts)
        self.matrix = None if self.empty else self.vectorizer.fit_transform(texts)

    def nearest(self, queries: Sequence[str], k: int) -> tuple[Any, Any]:
        """(places [Q, k], similarities [Q, k]), nearest first; fewer than k texts leave fewer columns."""
        if self.matrix is None or not len(queries):
            return np.zeros((len(queries), 0), dtype=int), np.zeros((len(queries), 0))
        k = min(k, self.matrix.shape[0])
        asked = self.vectorizer.transform(queries)
        places, values = [], []
        for start in range(0, len(queries), BLOCK):
            near = (asked[start : start + BLOCK] @ self.matrix.T).toarray()
            top = np.argpartition(-near, k - 1, axis=1)[:, :k]
            found = np.take_along_axis(near, top, axis=1)
            order = np.argsort(-found, axis=1, kind="stable")
            places.append(np.take_along_axis(top, order, axis=1))
            values.append(np.take_along_axis(found, order, axis=1))
        return np.concatenate(places), np.concatenate(values)

    def weights(self) -> dict[str, float]:
        """Inverse document frequency of every word."""
        if self.matrix is None:
            return {}
        names = self.vectorizer.get_feature_names_out()
        return dict(zip(names, (float(x) for x in self.vectorizer.idf_), strict=True))


def topics(texts: Sequence[str], count: int, seed: int) -> tuple[list[int], list[str]]:
    """(topic of each text, name of each topic): k-means, named by the words that stand out against the other topics.

    Fewer than two topics, or texts without words: every text is in topic 0, which has no name.
    """
    index = Index(texts)
    if index.matrix is None or count < 2 or len(set(texts)) < count:
        return [0] * len(texts), [""]
    from sklearn.cluster import MiniBatchKMeans

    model = MiniBatchKMeans(n_clusters=count, random_state=seed, n_init=3, batch_size=1024)
    found = model.fit_predict(index.matrix)
    names = index.vectorizer.get_feature_names_out()
    overall = np.asarray(index.matrix.mean(axis=0))[0]
    titles = []
    for topic in range(count):
        own = np.asarray(index.matrix[found == topic].mean(axis=0))[0] if (found == topic).any() else overall
        top = np.argsort(-(own - overall), kind="stable")[:WORDS_A_TOPIC]
        titles.append(" ".join(str(names[i]) for i in top if own[i] > overall[i]))
    return [int(t) for t in found], titles


def out_of_fold(texts: Sequence[str], labels: Sequence[str], folds: int, seed: int) -> tuple[Any, list[str]]:
    """(probabilities [N, labels], label names): each text judged by a linear model that has not seen it.

    A label with fewer rows than folds is still judged, by the folds that hold it.
    """
    from sklearn.linear_model import SGDClassifier

    names = sorted(set(labels))
    place = {name: i for i, name in enumerate(names)}
    found = np.full((len(texts), len(names)), 1.0 / max(1, len(names)))
    sides = np.random.default_rng(seed).permutation(np.arange(len(texts)) % folds)
    for fold in range(folds):
        inside = [i for i in range(len(texts)) if sides[i] != fold]
        outside = [i for i in range(len(texts)) if sides[i] == fold]
        seen = [labels[i] for i in inside]
        if not outside or len(set(seen)) < 2:
            continue
        vectorizer = _vectorizer(2)
        model = SGDClassifier(loss="log_loss", alpha=2e-5, max_iter=40, random_state=seed, class_weight="balanced")
        try:
            model.fit(vectorizer.fit_transform([texts[i] for i in inside]), seen)
        except ValueError:  # no words at all
            continue
        scores = model.predict_proba(vectorizer.transform([texts[i] for i in outside]))
        found[np.ix_(outside, [place[str(c)] for c in model.classes_])] = scores
    return found, names
