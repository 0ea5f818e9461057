"""What is in a data folder, in numbers: counts that add up, lengths, tokens, labels, clusters, overlaps, examples."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.asked import asked_and_answered
from tuneloop.data.duplicates import CODES, Decisions
from tuneloop.data.groups import Groups
from tuneloop.data.keys import Keys
from tuneloop.data.write import row_texts
from tuneloop.prompts.batch import best_fit
from tuneloop.records import KINDS, SPLITS, decode
from tuneloop.text import shorten

CLUSTERS, MEMBERS = 20, 6
MOST_LABELS = 1000
BINS = 30


@dataclass
class Seen:
    """What is counted while the rows go by."""

    labels: Counter[str] = field(default_factory=Counter)
    labels_by_split: dict[str, set[str]] = field(default_factory=lambda: {split: set() for split in SPLITS})
    label_length: dict[str, list[int]] = field(default_factory=dict)  # label -> [rows, characters]
    label_source: Counter[tuple[str, int]] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    examples: list[dict[str, str]] = field(default_factory=list)

    def look(self, table: Any, lengths: NDArray[Any], parts: NDArray[Any], languages: bool) -> None:
        """One shard of kept rows, with the characters of each and its file."""
        if table["label"].null_count < len(table):
            rows = zip(
                table["label"].to_pylist(), table["split"].to_pylist(), lengths.tolist(), parts.tolist(), strict=True
            )
            for label, split, length, part in rows:
                if label is not None:
                    self.labels[label] += 1
                    self.labels_by_split[split].add(label)
                    held = self.label_length.setdefault(label, [0, 0])
                    held[0] += 1
                    held[1] += length
                    self.label_source[label, part] += 1
        if languages:
            for meta in table["meta"].to_pylist():
                found = (json.loads(meta or "{}").get("language") or {}).values()
                self.languages.update(code or "too short to tell" for code in found)
        counts = Counter(row["split"] for row in self.examples)
        for split in SPLITS:
            if counts[split] < 3 and len(table):
                self._examples(table, split, 3 - counts[split])

    def _examples(self, table: Any, split: str, wanted: int) -> None:
        import pyarrow.compute as pc

        for row in table.filter(pc.equal(table["split"], split)).slice(0, wanted).to_pylist():
            example = decode(row)
            asked, answer = asked_and_answered(example)
            shown = {"prompt": shorten(asked, 300), "answer": shorten(answer, 300)}
            self.examples.append({"id": example.id, "split": split, **shown})


def spread(values: NDArray[Any], marks: tuple[int, ...] = (50, 95)) -> dict[str, float]:
    """Smallest, percentiles, largest, mean and total."""
    if not len(values):
        return {}
    held = np.sort(values)
    names = {50: "median"}
    at = {names.get(q, f"p{q}"): int(held[min(int(q / 100 * len(held)), len(held) - 1)]) for q in marks}
    total = int(held.sum(dtype=np.int64))
    return {"min": int(held[0]), **at, "max": int(held[-1]), "mean": round(total / len(held), 1), "total": total}


def tokens(
    asked: NDArray[Any], answer: NDArray[Any], model: dict[str, Any], context: int | None, vocabulary: tuple[int, int]
) -> dict[str, Any]:
    """Of the training rows, by the tokenizer and template of the model."""
    whole = asked.astype(np.int64) + answer
    marks = (5, 25, 50, 75, 95, 99)
    out: dict[str, Any] = {
        **model, "context": context, "rows": len(whole),
        "prompt": spread(asked, marks), "answer": spread(answer, marks), "example": spread(whole, marks),
        "trained_share": round(float(answer.sum(dtype=np.int64)) / max(1, int(whole.sum())), 4),
        "no_trained_token": int((answer == 0).sum()),
        "histogram": histogram(whole),
        "vocabulary": {"used": vocabulary[0], "size": vocabulary[1], "share": round(vocabulary[0] / vocabulary[1], 4)},
    }  # fmt: skip
    if context and len(whole):
        packs = best_fit(np.minimum(whole, context).tolist(), context)
        out["over_context"] = round(float((whole > context).mean()), 5)
        out["packed"] = {
            "packs": len(packs),
            "full": round(int(np.minimum(whole, context).sum()) / (len(packs) * context), 4),
        }
        out["padded_to_longest"] = round(int(whole.sum()) / (len(whole) * int(whole.max())), 4)
    return out


def histogram(values: NDArray[Any]) -> dict[str, list[float]]:
    """Counts between edges that grow by a factor, since lengths do."""
    if not len(values):
        return {"edges": [], "counts": []}
    edges = np.unique(
        np.round(np.geomspace(max(1, int(values.min())), int(values.max()) + 1, BINS + 1)).astype(np.int64)
    )
    edges = edges if len(edges) > 1 else np.array([edges[0], edges[0] + 1])
    counts = np.histogram(np.maximum(values, 1), bins=edges)[0]
    return {"edges": edges.tolist(), "counts": counts.tolist()}


def clusters(keys: Keys, decided: Decisions) -> list[dict[str, Any]]:
    """The largest clusters of repeated rows: the row kept, and some that went for it with how near they were."""
    codes = [CODES.index(name) for name in ("duplicate", "near_duplicate", "other_answer")]
    gone = np.flatnonzero(np.isin(decided.code, codes))
    if not len(gone):
        return []
    kept, counts = np.unique(decided.other[gone], return_counts=True)
    # Near ones first: what is equal to the letter teaches a reader little.
    near = np.bincount(decided.other[gone], weights=decided.code[gone] == codes[1], minlength=keys.count)[kept]
    chosen = np.lexsort((kept, -counts, near == 0))[:CLUSTERS]
    out = []
    for one in chosen.tolist():
        members = gone[decided.other[gone] == kept[one]]
        members = members[np.argsort(decided.value[members], kind="stable")][:MEMBERS]
        texts = row_texts(keys, [int(kept[one]), *members.tolist()])
        shown = [
            {"id": texts[m][0], "prompt": shorten(texts[m][1], 300), "answer": shorten(texts[m][2], 120),
             "reason": CODES[decided.code[m]], "similarity": round(float(decided.value[m]), 3)}
            for m in members.tolist()
        ]  # fmt: skip
        first = texts[int(kept[one])]
        head = {"kept": first[0], "prompt": shorten(first[1], 300), "answer": shorten(first[2], 120)}
        out.append({**head, "rows": int(counts[one]) + 1, "dropped": shown})
    return out


def balance(seen: Seen, sources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """label x length x source: a label that is long, or comes from one source alone, is learned from that."""
    lines = []
    for label, count in seen.labels.most_common(MOST_LABELS):
        rows, characters = seen.label_length[label]
        by = {sources[part]["uri"]: n for (name, part), n in seen.label_source.items() if name == label}
        lines.append({"label": label, "rows": count, "characters": round(characters / rows, 1), "sources": by})
    return lines


def counts(keys: Keys, groups: Groups, decided: Decisions, reasons: Counter[str], repeats: int) -> dict[str, Any]:
    """The numbers that must add up: rows in = kept + rejected, where pieces of a row that was split count once."""
    kept = keys.ok & (decided.code == 0)
    extra = keys["extra"].astype(bool)
    sides = groups.split[kept]
    return {
        "rows_in": int((~extra).sum()),
        "pieces": int(extra.sum()),
        "kept": int(kept.sum()),
        "rejected": int((~kept).sum()),
        "reasons": dict(reasons.most_common()),
        "splits": {name: int((sides == number).sum()) for number, name in enumerate(SPLITS)},
        "repeats": repeats,
        "groups": len(np.unique(groups.group[kept])),
        "kinds": {
            k: n
            for k, n in Counter(
                {name: int((keys["kind"][kept] == i).sum()) for i, name in enumerate(KINDS)}
            ).most_common()
            if n
        },
    }
