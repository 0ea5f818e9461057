"""ARC-Easy and ARC-Challenge (Clark et al. 2018), as lm-eval 0.4.13 defines them: each option's full text is scored."""

from __future__ import annotations

from typing import Any

from tuneloop.tasks.base import Item, Source, Task


def item(doc: dict[str, Any]) -> Item:
    labels = list(doc["choices"]["label"])  # A-E or 1-5
    return Item(
        prompt=f"Question: {doc['question']}\nAnswer:",
        options=list(doc["choices"]["text"]),
        gold=[labels.index(doc["answerKey"])],
        question=doc["question"],
        category=str(doc.get("wording", "")),
        id=str(doc.get("id", "")),
    )


def _task(name: str, config: str) -> Task:
    files: dict[str, tuple[str, ...]] = {split: (f"{name}/{split}",) for split in ("train", "validation", "test")}
    source = Source(files=files, hub=("allenai/ai2_arc", config))
    return Task(name, "1.0", source, item, scored="test", shots_from="train", normalised=True)


TASKS = [_task("arc_easy", "ARC-Easy"), _task("arc_challenge", "ARC-Challenge")]
