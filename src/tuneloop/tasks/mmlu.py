"""MMLU (Hendrycks et al. 2021), as lm-eval 0.4.13 defines it: the letter is scored, a header names the subject,
shots are the first of the subject's dev rows in order."""

from __future__ import annotations

from typing import Any

from tuneloop.tasks.base import Item, Source, Task

LETTERS = "ABCD"


def item(doc: dict[str, Any]) -> Item:
    options = "".join(f"{letter}. {text}\n" for letter, text in zip(LETTERS, doc["choices"], strict=True))
    return Item(
        prompt=f"{doc['question'].strip()}\n{options}Answer:",
        options=list(LETTERS),
        gold=[int(doc["answer"])],
        question=doc["question"],
        category=doc["subject"],
        texts=[str(choice) for choice in doc["choices"]],
    )


def head(found: Item) -> str:
    subject = found.category.replace("_", " ")
    return f"The following are multiple choice questions (with answers) about {subject}.\n\n"


SOURCE = Source(files={split: (f"mmlu/{split}",) for split in ("dev", "validation", "test")}, hub=("cais/mmlu", "all"))
TASKS = [Task("mmlu", "1.0", SOURCE, item, metric="acc", scored="test", shots_from="dev", head=head, by_category=True)]
