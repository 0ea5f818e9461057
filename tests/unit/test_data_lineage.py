"""Generated rows enter like any other source and stand where their ancestors stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.records import Example, read_examples, read_rejected
from tuneloop.text import key


def chat(question: str, answer: str = "an answer") -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def made(question: str, parents: list[str], **more: Any) -> dict[str, Any]:
    generator = {"model": "m", "template": "t", "seed": 0, "request": "r", "licence": "teacher's terms", **more}
    return {"kind": "chat", "messages": chat(question), "parents": parents, "generator": generator}


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def rows_of(out: Path) -> dict[str, Example]:
    found = [row for split in ("train", "valid", "test") for row in read_examples(out, split)]
    return {str((row.messages or [])[0]["content"]): row for row in found}


@pytest.fixture
def seeds(tmp_path: Path) -> tuple[str, dict[str, Example]]:
    path = lines(
        tmp_path / "seeds.jsonl", [{"question": f"What is {key(str(i))[:12]}?", "answer": f"{i}"} for i in range(60)]
    )
    out = prepare(DataConfig(source=[path], valid_fraction=0.2, test_fraction=0.2), tmp_path / "first")
    return path, rows_of(out)


def test_children_stand_in_the_split_and_group_of_their_parents(
    tmp_path: Path, seeds: tuple[str, dict[str, Example]]
) -> None:
    path, parents = seeds
    children = lines(tmp_path / "made.jsonl", [made(f"Child of {q}", [row.id]) for q, row in parents.items()])
    settings: dict[str, Any] = {"valid_fraction": 0.2, "test_fraction": 0.2}
    found = rows_of(prepare(DataConfig(source=[path, children], **settings), tmp_path / "both"))
    assert len(found) == 120
    assert {row.split for row in parents.values()} == {"train", "valid", "test"}
    for question, parent in parents.items():
        child = found[f"Child of {question}"]
        assert found[question].split == parent.split
        assert (child.split, child.group) == (parent.split, parent.group)
        assert child.source["licence"] == "teacher's terms"
        assert child.generator and child.generator["request"] == "r"


def test_grandchildren_and_mixed_parents(tmp_path: Path, seeds: tuple[str, dict[str, Example]]) -> None:
    path, parents = seeds
    by_split = {row.split: row for row in parents.values()}
    from tuneloop.records import example_id

    child = made("A child", [by_split["test"].id])
    child_id = example_id(Example(messages=child["messages"]))
    mixed = made("Of two", [by_split["train"].id, by_split["valid"].id])
    children = lines(tmp_path / "made.jsonl", [made("A grandchild", [child_id]), child, mixed])
    settings: dict[str, Any] = {"valid_fraction": 0.2, "test_fraction": 0.2}
    found = rows_of(prepare(DataConfig(source=[children, path], **settings), tmp_path / "both"))
    assert found["A grandchild"].split == found["A child"].split == "test"
    assert found["Of two"].split == "valid"


def test_absent_parents_leave_the_split_that_was_noted(tmp_path: Path) -> None:
    rows = [made(f"Made {i}", ["feedfeedfeedfeed"], split="train") for i in range(40)]
    path = lines(tmp_path / "made.jsonl", rows)
    found = rows_of(prepare(DataConfig(source=[path], valid_fraction=0.4, test_fraction=0.4), tmp_path / "d"))
    assert {row.split for row in found.values()} == {"train"}


def test_a_broken_generated_row_is_refused_by_name(tmp_path: Path) -> None:
    good = made("Good", [])
    broken = [{**good, "kind": "poem"}, {**good, "parents": "x"}, {**good, "messages": None}]
    path = lines(tmp_path / "made.jsonl", [good, *broken])
    out = prepare(DataConfig(source=[path], valid_fraction=0, test_fraction=0), tmp_path / "d")
    assert [(r.reason, r.field) for r in read_rejected(out)] == [
        ("wrong_type", "kind"), ("wrong_type", "parents"), ("no_prompt", "messages"),
    ]  # fmt: skip
