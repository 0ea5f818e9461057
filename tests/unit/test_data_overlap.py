"""Rows that repeat a benchmark: which rule finds them, which rows go, and what is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import DataConfig, TaskSpec
from tuneloop.data import prepare
from tuneloop.errors import UsageError
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.records import read_examples, read_rejected
from tuneloop.store import read_json

LONG = "A student pours water into a red bucket, leaves it in the sun for three days and weighs what is left"
ITEMS = [
    "Which gas do plants take from the air?",
    LONG,
    "Who wrote it?",
    "Which of the following is an example of a compound?",
    "Which of the following is an example of a mammal?",
    "Which of the following is an example of a planet?",
]


def found(text: str, whole: str = "") -> list[tuple[int, str]]:
    return [(one.item, one.rule) for one in OverlapIndex(["b"] * len(ITEMS), ITEMS).search([text], [whole])]


def test_each_rule_finds_what_it_is_for() -> None:
    assert found(f"Say: {LONG.upper()}!") == [(1, "8-gram coverage")]
    half = " ".join(LONG.split()[:14])
    assert found(half) == [(1, "8-gram coverage")]
    assert found(" ".join(LONG.split()[:9])) == []
    assert found("Who wrote it?", "who wrote it") == [(2, "whole string")]
    assert found("Who wrote it? Nobody knows.", "who wrote it nobody knows") == []
    assert found("Which gas, do plants: take from the air") == [(0, "8-gram coverage")]


def test_stock_phrases_are_no_finds() -> None:
    assert found("Which of the following is an example of a bird?") == []
    assert found("Which of the following is an example of a compound") == [(3, "8-gram coverage")]


def test_long_texts_are_found_by_any_13_words() -> None:
    filler = " ".join(f"word{i}" for i in range(210))
    item = " ".join(f"fact{i}" for i in range(60))
    index = OverlapIndex(["b"], [item])
    piece = " ".join(item.split()[20:33])
    assert [o.rule for o in index.search([f"{filler} {piece} {filler}"], [""])] == ["13-gram"]
    assert index.search([piece], [""]) == []


def test_words_stand_alone_and_order_counts() -> None:
    index = OverlapIndex(["b"], [LONG])
    assert index.search([" ".join(reversed(LONG.split()))], [""]) == []
    assert index.search([LONG.replace(" ", "")], [""]) == []
    assert index.search([""], [""]) == []


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    """A task folder of the layout of arc_easy."""
    docs = [
        {"id": str(i), "question": q, "choices": {"text": ["yes", "no"], "label": ["A", "B"]}, "answerKey": "A"}
        for i, q in enumerate([*ITEMS, "Which statement is correct?", "Which statement is correct?"])
    ]
    folder = tmp_path / "tasks" / "arc_easy"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(d) + "\n" for d in docs), encoding="utf-8")
    return folder.parent


def rows(path: Path, questions: list[str]) -> str:
    path.write_text("".join(json.dumps({"question": q, "answer": f"{i}"}) + "\n" for i, q in enumerate(questions)))
    return str(path)


def test_training_rows_go_and_test_rows_stay(tmp_path: Path, tasks: Path) -> None:
    train = rows(tmp_path / "train.jsonl", ["What is love?", LONG, "Who wrote it?", "Which statement is correct?"])
    test = rows(tmp_path / "test.jsonl", [ITEMS[0], "Where is north?"])
    config = DataConfig(source=[train], test=[test], valid_fraction=0)
    out = prepare(config, tmp_path / "out", tasks=[TaskSpec(task="arc_easy", data=str(tasks))])
    gone = {r.line: r for r in read_rejected(out)}
    assert {line: r.reason for line, r in gone.items()} == {2: "contaminated", 3: "contaminated"}
    assert "arc_easy 8-gram coverage 1.00" in gone[2].value and "red bucket" in gone[2].value and gone[2].cure
    kept = read_examples(out, "test")
    assert [("contaminated" in row.flags) for row in kept] == [True, False]
    told = read_json(out / "profile.json")["contamination"]
    assert told["benchmarks"][0] | {"share": 0} == {
        "benchmark": "arc_easy", "items": 8, "items_repeated": 3, "rows": 3, "rows_out": 2, "share": 0,
    }  # fmt: skip
    assert {find["item"] for find in told["finds"]} == {ITEMS[0], LONG, "Who wrote it?"}
    assert all(find["row"] and find["where"] for find in told["finds"])


def test_files_and_tasks_can_be_named_and_none(tmp_path: Path, tasks: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = rows(tmp_path / "a.jsonl", ["What is love?", LONG])
    shares: dict[str, Any] = {"valid_fraction": 0, "test_fraction": 0}
    secret = rows(tmp_path / "secret.jsonl", [LONG])
    out = prepare(DataConfig(source=[source], decontaminate=[secret], **shares), tmp_path / "one")
    assert [r.reason for r in read_rejected(out)] == ["contaminated"]
    spec = TaskSpec(task="arc_easy", data=str(tasks))
    out = prepare(DataConfig(source=[source], decontaminate=[], **shares), tmp_path / "two", tasks=[spec])
    assert read_rejected(out) == []
    with pytest.raises(UsageError) as error:
        prepare(DataConfig(source=[source], decontaminate=["arc_eazy"], **shares), tmp_path / "three")
    assert error.value.number == 137 and "arc_easy" in error.value.expected


def test_a_task_that_is_not_here_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TUNELOOP_DATA", raising=False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    source = rows(tmp_path / "a.jsonl", ["What is love?"])
    config = DataConfig(source=[source], valid_fraction=0, test_fraction=0)
    out = prepare(config, tmp_path / "out", tasks=[TaskSpec(task="arc_easy")])
    assert read_json(out / "profile.json")["contamination"]["not_checked"] == ["arc_easy"]
    assert "not checked for overlaps: arc_easy" in capsys.readouterr().err


def test_children_are_checked_and_other_benchmark_rows_are_another_run(tmp_path: Path, tasks: Path) -> None:
    source = rows(tmp_path / "a.jsonl", [f"name river {key}" for key in "abcdefghijkl"])
    wanted: dict[str, Any] = {"valid_fraction": 0, "test_fraction": 0, "augment": {"templates": 3}}
    wanted |= {"near_duplicates": False, "source": [source]}
    plain = prepare(DataConfig(**wanted), tmp_path / "plain")
    asked = [(row.messages or [{}])[0]["content"] for row in read_examples(plain, "train") if row.generator]
    docs = tasks / "arc_easy" / "test.jsonl"
    doc = {"id": "x", "question": asked[0], "choices": {"text": ["y", "n"], "label": ["A", "B"]}, "answerKey": "A"}
    before, spec = docs.read_text(), TaskSpec(task="arc_easy", data=str(tasks))
    docs.write_text(before + json.dumps(doc) + "\n")
    out = prepare(DataConfig(**wanted), tmp_path / "checked", tasks=[spec])
    told = read_json(out / "profile.json")["augmented"]
    assert told["contaminated"] == 1
    left = [(row.messages or [{}])[0]["content"] for row in read_examples(out, "train") if row.generator]
    assert asked[0] not in left and len(left) == len(asked) - 1
    docs.write_text(before)
    with pytest.raises(UsageError, match="other"):
        prepare(DataConfig(**wanted), tmp_path / "checked", tasks=[spec])
