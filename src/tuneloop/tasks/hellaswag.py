"""HellaSwag (Zellers et al. 2019), as lm-eval 0.4.13 defines it.

Raw hub rows are cleaned here, cleaned rows taken as they are.
"""

from __future__ import annotations

import re
from typing import Any

from tuneloop.tasks.base import Item, Source, Task


def clean(text: str) -> str:
    """Drops the bracket tags of the WikiHow part; a title becomes a full stop. Double spaces collapse once."""
    text = text.strip().replace(" [title]", ". ")
    return re.sub(r"\[.*?\]", "", text).replace("  ", " ")


def item(doc: dict[str, Any]) -> Item:
    if "query" in doc:
        query, endings, gold = doc["query"], list(doc["choices"]), int(doc["gold"])
    else:
        context = f"{doc['ctx_a']} {doc['ctx_b'].capitalize()}"
        query = clean(f"{doc['activity_label']}: {context}")
        endings, gold = [clean(ending) for ending in doc["endings"]], int(doc["label"])
    return Item(
        prompt=query,
        options=endings,
        gold=[gold],
        question=query,
        category=str(doc.get("activity_label", "")),
        group=str(doc.get("source_id") or doc.get("activity_label", "")),
    )


SOURCE = Source(
    files={
        "validation": ("hellaswag/validation_clean", "hellaswag/validation"),
        "train": ("hellaswag/fewshot_train_5", "hellaswag/train"),
    },
    hub=("Rowan/hellaswag", None),
)
TASKS = [
    Task("hellaswag", "1.0", SOURCE, item, scored="validation", shots_from="train", one_more=True, normalised=True)
]
