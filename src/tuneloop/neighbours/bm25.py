"""BM25 over short texts: which rows are about the same words. Source: Robertson and Zaragoza 2009; idf as in Lucene."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from tuneloop.text import words

K1, B = 1.2, 0.75


class Bm25:
    """An index over `texts`; `nearest` gives the rows that fit a query best."""

    def __init__(self, texts: Sequence[str]) -> None:
        from scipy.sparse import csr_matrix

        counts = [Counter(words(text)) for text in texts]
        self.vocabulary: dict[str, int] = {}
        for row in counts:
            for word in row:
                self.vocabulary.setdefault(word, len(self.vocabulary))
        lengths = np.array([row.total() for row in counts], dtype=np.float64)
        n, mean = len(texts), float(lengths.mean()) if len(texts) and lengths.any() else 1.0
        seen = Counter(word for row in counts for word in row)
        cells: list[float] = []
        columns: list[int] = []
        ends = [0]
        for row, length in zip(counts, lengths, strict=True):
            for word, count in row.items():
                idf = np.log1p((n - seen[word] + 0.5) / (seen[word] + 0.5))
                cells.append(idf * count * (K1 + 1) / (count + K1 * (1 - B + B * length / mean)))
                columns.append(self.vocabulary[word])
            ends.append(len(cells))
        self.weights = csr_matrix((cells, columns, ends), shape=(n, max(1, len(self.vocabulary)))).tocsc()
        self.size = n

    def scores(self, query: str) -> np.ndarray:
        """[rows] the score of every row; 0 where no word is shared."""
        asked = [self.vocabulary[word] for word in set(words(query)) if word in self.vocabulary]
        if not asked:
            return np.zeros(self.size)
        return np.asarray(self.weights[:, asked].sum(axis=1)).ravel()

    def nearest(self, query: str, k: int) -> list[int]:
        """The `k` best rows, best first; equal scores in the order of the rows."""
        found = self.scores(query)
        return [int(i) for i in np.argsort(-found, kind="stable")[:k]]
