"""What is in a data folder, in numbers: counts that add up, lengths, labels, examples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from tuneloop.data.split import prompt_and_answer
from tuneloop.records import SPLITS, Example, Rejected
from tuneloop.text import shorten


def profile(
    rows: list[Example], rejected: list[Rejected], sources: list[dict[str, Any]], cleaned: Mapping[str, int]
) -> dict[str, Any]:
    """`rows_in` = `kept` + `rejected`, over all and for each source; lengths in characters."""
    kept = Counter(str(r.source["uri"]) for r in rows)
    refused = Counter(r.uri for r in rejected)
    for source in sources:
        source["kept"], source["rejected"] = kept[source["uri"]], refused[source["uri"]]
    labels = Counter(r.label for r in rows if r.label is not None)
    return {
        "rows_in": sum(s["rows_in"] for s in sources),
        "kept": len(rows),
        "rejected": len(rejected),
        "reasons": dict(Counter(r.reason for r in rejected).most_common()),
        "splits": {split: sum(r.split == split for r in rows) for split in SPLITS},
        "groups": len({r.group for r in rows}),
        "kinds": dict(Counter(r.kind for r in rows).most_common()),
        "formats": dict(sum((Counter(s["formats"]) for s in sources), Counter())),
        "sources": sources,
        "cleaned": dict(cleaned),
        "characters": {
            "prompt": _spread([len(prompt_and_answer(r)[0]) for r in rows]),
            "answer": _spread([len(prompt_and_answer(r)[1]) for r in rows]),
        },
        "labels": dict(labels.most_common()),
        "labels_by_split": {
            split: len({r.label for r in rows if r.split == split and r.label is not None}) for split in SPLITS
        },
        "examples": [_example(r) for split in SPLITS for r in [r for r in rows if r.split == split][:3]],
    }


def _spread(values: list[int]) -> dict[str, float]:
    held = sorted(values)
    if not held:
        return {}
    at = {name: held[min(int(q * len(held)), len(held) - 1)] for name, q in (("median", 0.5), ("p95", 0.95))}
    return {"min": held[0], **at, "max": held[-1], "mean": round(sum(held) / len(held), 1), "total": sum(held)}


def _example(row: Example) -> dict[str, str]:
    prompt, answer = prompt_and_answer(row)
    return {"id": row.id, "split": row.split, "prompt": shorten(prompt, 300), "answer": shorten(answer, 300)}
