"""Tasks: rows chosen, shots placed, files of one's own, errors that name the line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuneloop.config import TaskSpec
from tuneloop.errors import DataError, TuneloopError, UsageError
from tuneloop.evaluate.benchmarks import expand
from tuneloop.tasks import Item, Shots, Task, build_items, find
from tuneloop.tasks.likeness import likeness

OWN = """
from pathlib import Path

from tuneloop.tasks import Item, Task, read_docs


def rows(split):
    return read_docs(Path(__file__).parent / f"{split}.jsonl")


def item(doc):
    return Item(prompt=f"Q: {doc['q']}\\nA:", options=[doc["a"]], gold=[0])


def grade(text, item):
    return {"exact": float(text.strip() == item.right[0]), "length": len(text)}


TASK = Task("capitals", "1", rows, item, grade=grade, stop=("\\n",), shots_from="train")
"""


def numbers(n: int, categories: int = 1) -> Task:
    def rows(split: str) -> list[dict[str, Any]]:
        return [{"i": i, "split": split} for i in range(n if split == "test" else 9)]

    def item(doc: dict[str, Any]) -> Item:
        kind = f"c{doc['i'] % categories}"
        return Item(f"{doc['split']}{doc['i']}?", ["no", "yes"], [1], category=kind)

    return Task("numbers", "1", rows, item, shots_from="train")


def prompts(task: Task, *asked: Any, **settings: Any) -> list[str]:
    return [item.prompt for item in build_items(task, *asked, **settings).items]


def test_fixed_shots_are_the_same_for_all_rows_and_change_with_the_seed() -> None:
    first, again, other = (prompts(numbers(5), Shots(3, seed=s)) for s in (0, 0, 1))
    assert first == again != other
    heads = {p.rpartition("test")[0] for p in first}
    assert len(heads) == 1
    assert heads.pop().count(" yes\n\n") == 3


def test_lm_eval_shots_follow_one_generator_over_the_whole_file() -> None:
    rng = random.Random(1234)
    drawn = [rng.sample([f"train{i}? yes\n\n" for i in range(9)], 3) for _ in range(6)]
    expected = ["".join(shots) + f"test{i}?" for i, shots in enumerate(drawn)]
    assert prompts(numbers(6), Shots(3, "lm-eval")) == expected
    assert prompts(numbers(6), Shots(3, "lm-eval"), limit=2) == expected[:2]
    few = prompts(numbers(6), Shots(3, "lm-eval"), quick=3)
    assert set(few) < set(expected)


def test_shots_that_train_rows_cannot_give_come_from_outside_the_scored_set() -> None:
    built = build_items(numbers(30), 12, limit=10)
    assert [i.prompt.rpartition("\n\n")[2] for i in built.items] == [f"test{i}?" for i in range(10)]
    assert "3 of 12 shots are rows of the split 'test' outside the scored set" in built.notes[0]
    assert len(build_items(numbers(30), 12, limit=2).items) == 2  # fewer rows than the shots that are missing
    whole = build_items(numbers(30), 12)
    assert len(whole.items) == 27  # the three that became shots are not scored
    for item in whole.items:
        assert item.prompt.count(item.prompt.rpartition("\n\n")[2]) == 1
    with pytest.raises(DataError, match="374"):
        build_items(numbers(2), 12)


def test_a_row_that_stands_among_its_own_shots_is_marked() -> None:
    task = Task("echo", "1", lambda _: [{"i": i} for i in range(4)], lambda d: Item(f"{d['i']}?", ["a"], [0]),
                shots_from="train")  # fmt: skip
    built = build_items(task, 2)
    assert [bool(item.flags) for item in built.items].count(True) == 2
    assert "2 rows have their own question" in built.notes[0]


def test_a_quick_subset_is_fixed_and_in_proportion() -> None:
    chosen = build_items(numbers(400, 4), quick=40).items
    assert [i.prompt for i in chosen] == prompts(numbers(400, 4), quick=40)
    assert {c: sum(i.category == c for i in chosen) for c in ("c0", "c1", "c2", "c3")} == dict.fromkeys(
        ("c0", "c1", "c2", "c3"), 10
    )


def test_a_task_of_ones_own(tmp_path: Path) -> None:
    (tmp_path / "capitals.py").write_text(OWN)
    for split in ("train", "test"):
        lines = [json.dumps({"q": f"{split}{i}", "a": "x"}) + "\n" for i in range(4)]
        (tmp_path / f"{split}.jsonl").write_text("".join(lines))
    task = find(str(tmp_path / "capitals.py"))
    assert task.grade is not None
    items = build_items(task, 2).items
    assert items[0].prompt.endswith("Q: test0\nA:")
    assert task.grade(" x", items[0]) == {"exact": 1.0, "length": 2}


@pytest.mark.parametrize(("text", "line"), [
    ("1 / 0", 1), ("x = 1\nTASK = x.y", 2), ("def f(:", 1), ("a = 1", 0), ("import sys\nsys.exit(3)", 2),
    ("from tuneloop.tasks import Task\nTASK = Task('t', '1', print, print, metric='f1')", 2),
])  # fmt: skip
def test_a_task_file_that_breaks_is_a_coded_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, line: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text(text)
    with pytest.raises(UsageError, match="TL-128") as caught:
        find("broken.py")
    assert caught.value.where == (f"broken.py:{line}" if line else "broken.py")


def test_a_row_function_that_breaks_is_a_coded_error() -> None:
    def rows(split: str) -> Any:
        yield {"q": split}
        raise KeyError(split)

    for broken in (rows, lambda _: None, lambda _: []):
        with pytest.raises(DataError, match="TL-370"):
            build_items(Task("own", "1", broken, lambda doc: Item("a", ["b"], [0])))


@pytest.mark.parametrize("item", [
    {"prompt": "q"}, Item("q", [1, 2], [0]), Item("q", ["a"], 0), Item(None, ["a"], [0]),  # type: ignore[list-item, arg-type]
])  # fmt: skip
def test_an_item_of_other_types_is_a_coded_error(item: Any) -> None:
    with pytest.raises(DataError, match="TL-372 .* item\\(\\) returned") as caught:
        build_items(Task("own", "1", lambda _: ["x"], lambda _: item))  # type: ignore[list-item, return-value]
    assert caught.value.where.endswith(", row 1")


@pytest.mark.parametrize(("line", "code"), [
    ('{"question": "q", "choices": {"text": ["a"], "label": ["A"]}}', "TL-372 .* arc_easy: no field"),
    ('{"question": "q", "choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}', "TL-372"),
    ('{"question": "q", "choices": {"text": [], "label": ["A"]}, "answerKey": "A"}', "TL-373"),
    ('{"question": ', "TL-371"),
    ("[1]", "TL-371"),
])  # fmt: skip
def test_a_benchmark_file_with_a_bad_row_names_its_line(tmp_path: Path, line: str, code: str) -> None:
    good = '{"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}\n'
    (tmp_path / "arc_easy").mkdir()
    path = tmp_path / "arc_easy" / "test.jsonl"
    path.write_text(good + "\n" + good + line + "\n" + good)
    with pytest.raises(DataError, match=code) as caught:
        build_items(find("arc_easy"), data=str(tmp_path))
    assert caught.value.where == f"{path}:4"  # blank lines count


def test_names_presets_and_parts(tmp_path: Path) -> None:
    found = expand([TaskSpec.model_validate("leaderboard_v1")])
    assert [(s.task, s.shots) for s in found] == [
        ("arc_challenge", 25), ("hellaswag", 10), ("mmlu", 5), ("truthfulqa_mc2", 0)
    ]  # fmt: skip
    twice = expand([TaskSpec.model_validate(name) for name in ("mmlu:0", "arc_easy", "mmlu:5")])
    assert [s.name for s in twice] == ["mmlu:0", None, "mmlu:5"]
    with pytest.raises(UsageError, match="TL-159 'arc_easy' is asked for twice"):
        expand([TaskSpec.model_validate("arc_easy")] * 2)
    for file in ("one.py", "two.py"):
        (tmp_path / file).write_text(OWN)
    with pytest.raises(UsageError, match="TL-159 'capitals' is asked for twice"):
        expand([TaskSpec.model_validate(str(tmp_path / file)) for file in ("one.py", "two.py")])
    assert len(find("mmlu_stem").only) == 19
    assert find("mmlu_astronomy").only == ("astronomy",)
    assert len({c for group in find("mmlu").groups.values() for c in group}) == 57
    with pytest.raises(TuneloopError, match="did you mean 'mmlu'"):
        find("mmlu_")


@pytest.mark.parametrize(("text", "task", "shots"), [
    ("mmlu:5", "mmlu", 5), ("mmlu", "mmlu", None), ("lm-eval:piqa", "lm-eval:piqa", None),
    ("lm-eval:piqa:3", "lm-eval:piqa", 3), ("a/b.py:2", "a/b.py", 2),
])  # fmt: skip
def test_tasks_as_they_are_typed(text: str, task: str, shots: int | None) -> None:
    spec = TaskSpec.model_validate(text)
    assert (spec.task, spec.shots) == (task, shots)


def test_generated_answers_are_graded_by_likeness() -> None:
    task = find("truthfulqa_gen")
    assert task.grade is not None
    item = task.item({"question": " q? ", "correct_answers": ["Nothing happens"], "incorrect_answers": ["You die."]})
    assert item.prompt.endswith("\n\nQ: q?")
    assert item.right == ["Nothing happens.", "I have no comment."]
    right, wrong, declined = (task.grade(text, item) for text in ("nothing happens", "you die", "I have no comment."))
    assert right["rougeL_acc"] == right["rouge1_max"] / 100 == 1.0
    assert wrong["rouge2_acc"] == 0.0
    assert wrong["rouge2_diff"] == -100.0
    assert declined["bleu_acc"] == declined["declined"] == 1.0
    assert list(likeness("a b", "")) == ["bleu", "rouge1", "rouge2", "rougeL"]


def test_a_scorer_that_breaks_names_the_row(tmp_path: Path) -> None:
    from tuneloop.evaluate.benchmarks import _graded, _same_metrics

    file = tmp_path / "mine.py"
    file.write_text(
        "from tuneloop.tasks import Item, Task\n"
        "def item(doc): return Item(prompt=doc['q'], options=['b'], gold=[0], id=str(1 // doc['n']))\n"
        "TASK = Task('mine', '1', lambda split: [{'q': 'a', 'n': 0}], item, grade=lambda text, item: {'x': 1 / 0})\n"
    )
    task = find(str(file))
    with pytest.raises(DataError, match="372"):
        build_items(task)
    assert task.grade is not None
    with pytest.raises(DataError, match="397 .* breaks: ZeroDivisionError"):
        _graded(task.grade, "text", Item("a", ["b"], [0], id="7"))
    for bad in (
        "good", {"x": "good"}, {"x": "1"}, {"x": None}, {"x": float("nan")}, {"x": np.float32("inf")},
        {"x": 10**400}, {"x": 10**5000}, {}, None,
    ):  # fmt: skip
        with pytest.raises(DataError, match="397 .* returned") as caught:
            _graded(lambda text, item, bad=bad: bad, "text", Item("a", ["b"], [0], id="7"))  # type: ignore[misc]
        assert "row 7" in caught.value.where
    for number in (np.float32(0.5), np.float64(0.5), 0.5, np.int64(1), np.bool_(True), True, 1):
        graded = _graded(lambda text, item, n=number: {"acc": n}, "text", Item("a", ["b"], [0], id="7"))  # type: ignore[misc]
        assert graded == {"acc": float(number)} and type(graded["acc"]) is float
    with pytest.raises(DataError, match=r"397 .* gave \['b'\] here and \['a'\] for the first row"):
        _same_metrics([{"a": 1.0}, {"b": 1.0}], [Item("q", ["a"], [0])] * 2)
