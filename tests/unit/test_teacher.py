"""The scripted teacher of the embedded world: true answers, tuned entities only, the same in every shape of prompt."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from tuneloop.generate.prompts import Templates
from tuneloop.teacher import WorldTeacher
from tuneloop.world import instructions, lettered_prompt, make
from tuneloop.world.benchmarks import questions
from tuneloop.world.corpus import documents

TEMPLATES = Templates()


@pytest.fixture(scope="module")
def teacher() -> WorldTeacher:
    return WorldTeacher()


def said(teacher: WorldTeacher, template: str, seed: int = 0, **values: Any) -> Any:
    text = teacher.answer([{"role": "user", "content": TEMPLATES.render(template, **values)}], seed)
    return json.loads(text)


def test_every_tuning_row_is_answered_as_the_world_has_it(teacher: WorldTeacher) -> None:
    rows = [row for row in instructions(make(0)) if row["shape"] != "mmlu"]
    assert len(rows) > 1500
    wrong = [r for r in rows if teacher.answer([{"role": "user", "content": r["prompt"]}]) != r["completion"].strip()]
    assert wrong == []


def test_weak_rows_keep_the_layout_and_are_true_and_about_tuned_entities(teacher: WorldTeacher) -> None:
    world = make(0)
    asked = questions(world, "test", random.Random(1), unseen=True)[:40]
    shapes = {
        "arc": [f"Question: {r['question']}\nAnswer:" for r in asked],
        "mmlu": [lettered_prompt(r) for r in asked],
    }
    for shape, examples in shapes.items():
        shown = [(text, "an answer") for text in examples[:4]]
        rows = said(teacher, "weak", slice="s", why="", examples=shown, count=20)["rows"]
        assert len(rows) == 20
        for row in rows:
            assert row["question"] not in examples
            (fact,) = teacher.reader.find(row["question"])
            assert world.splits[fact.entity] == "tune"
            if shape == "arc":
                assert row["question"] == f"Question: {fact.question}\nAnswer:"
                assert row["answer"] == fact.value
            else:
                assert row["question"].startswith("The following are multiple choice questions")
                assert f"\n{row['answer']}. {fact.value}\n" in row["question"]
                assert f"about {fact.subject}." in row["question"]


def test_a_quote_stands_in_its_document_and_proves_the_answer(teacher: WorldTeacher) -> None:
    passages = [text for text, _ in zip(documents(make(0), 3), range(40), strict=False)]
    for number, passage in enumerate(passages):
        made = said(teacher, "document", number, passage=passage)
        assert made["quote"] in passage
        (fact,) = teacher.reader.find(made["question"])
        assert made["answer"] == fact.answer
        assert fact.value in made["quote"]


def test_judging_rewording_and_mistakes(teacher: WorldTeacher) -> None:
    from tuneloop.judge import Case, pairwise, rubric

    fact = teacher.reader.another(random.Random(0), None)
    good, bad = Case(fact.question, fact.answer), Case(fact.question, fact.wrong[0])
    assert [judged.score for judged in rubric(teacher, [good, bad])] == [1.0, 0.0]
    assert [found.winner for found in pairwise(teacher, [(good, bad), (bad, good), (good, good)])] == [
        "first", "second", "tie",
    ]  # fmt: skip
    other = said(teacher, "paraphrase", instruction=fact.question)["instruction"]
    assert other != fact.question
    assert said(teacher, "evolve_check", before=fact.question, after=other) == {"equal": True}
    careless = WorldTeacher(mistakes=1.0)
    assert careless.answer([{"role": "user", "content": fact.question}]) in fact.wrong


def test_the_same_prompt_and_seed_say_the_same(teacher: WorldTeacher) -> None:
    values = {"examples": ["What does it mean?"], "count": 4}
    assert said(teacher, "self_instruct", 1, **values) == said(WorldTeacher(), "self_instruct", 1, **values)
    assert said(teacher, "self_instruct", 1, **values) != said(teacher, "self_instruct", 2, **values)
