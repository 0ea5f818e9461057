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


# Which subjects make up the four published groups.
GROUPS: dict[str, tuple[str, ...]] = {
    "stem": (
        "abstract_algebra",
        "anatomy",
        "astronomy",
        "college_biology",
        "college_chemistry",
        "college_computer_science",
        "college_mathematics",
        "college_physics",
        "computer_security",
        "conceptual_physics",
        "electrical_engineering",
        "elementary_mathematics",
        "high_school_biology",
        "high_school_chemistry",
        "high_school_computer_science",
        "high_school_mathematics",
        "high_school_physics",
        "high_school_statistics",
        "machine_learning",
    ),
    "humanities": (
        "formal_logic",
        "high_school_european_history",
        "high_school_us_history",
        "high_school_world_history",
        "international_law",
        "jurisprudence",
        "logical_fallacies",
        "moral_disputes",
        "moral_scenarios",
        "philosophy",
        "prehistory",
        "professional_law",
        "world_religions",
    ),
    "social_sciences": (
        "econometrics",
        "high_school_geography",
        "high_school_government_and_politics",
        "high_school_macroeconomics",
        "high_school_microeconomics",
        "high_school_psychology",
        "human_sexuality",
        "professional_psychology",
        "public_relations",
        "security_studies",
        "sociology",
        "us_foreign_policy",
    ),
    "other": (
        "business_ethics",
        "clinical_knowledge",
        "college_medicine",
        "global_facts",
        "human_aging",
        "management",
        "marketing",
        "medical_genetics",
        "miscellaneous",
        "nutrition",
        "professional_accounting",
        "professional_medicine",
        "virology",
    ),
}
SOURCE = Source(files={split: (f"mmlu/{split}",) for split in ("dev", "validation", "test")}, hub=("cais/mmlu", "all"))
TASKS = [
    Task(
        "mmlu", "1.0", SOURCE, item, scored="test", shots_from="dev", first_shots=True, head=head, by_category=True,
        groups=GROUPS,
    )
]  # fmt: skip
