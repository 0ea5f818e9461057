"""What analysis asks of a model: probes, influence, checkpoints; and rows that a teacher writes for a round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipe.tiny import byte_model, tiny_data, tiny_examples, tiny_folder
from tests.unit.test_analyze import option_row, write_scores

from tuneloop.analyze import analyze
from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.probes import Request, add_probes
from tuneloop.analyze.training import read_training
from tuneloop.config import AnalyzeConfig, EvalConfig, LoopConfig, ModelConfig, TrainConfig
from tuneloop.errors import UsageError
from tuneloop.records import read_examples
from tuneloop.rounds import run_rounds
from tuneloop.rounds.looking import influence_with, kept_scores, probe_with
from tuneloop.store import read_json, read_jsonl
from tuneloop.train import train

BODY = "A. red\nB. blue\nC. green"


def lettered(row: str, gold: int, pred: int) -> Tagged:
    options = BODY.split("\n")
    made = option_row("quiz", row, gold=gold, logprobs=[0.0 if k == pred else -2.0 for k in range(3)], options=options)
    return Tagged("quiz", made | {"question": f"Colour {row}?"}, None, [])


def prompt_of(item: Tagged) -> str:
    return f"{item.row['question']}\n{BODY}\nAnswer:"


def test_each_probe_names_the_cause_that_its_answers_show() -> None:
    """A reader that always says B unless the options stand alone, where it knows the colour."""
    asked: list[Request] = []

    def says_b(requests: list[Request]) -> list[list[float]]:
        asked.extend(requests)
        alone = [said == [" red", " blue", " green"] for _, said in requests]
        return [[0.0, -1.0, -2.0] if cloze else [-1.0, 0.0, -2.0] for cloze in alone]

    items = [lettered("0", 0, 1), lettered("1", 2, 1), lettered("2", 1, 1)]
    prompts = {"quiz": [prompt_of(item) for item in items]}
    add_probes(items, prompts, ["blank", "rotate", "cloze", "shots"], says_b)
    # Wrong by letter and right by text: the form; the same letter without question and in another order.
    assert items[0].causes == ["prior-driven", "position bias", "format failure"]
    assert items[1].causes == ["prior-driven", "position bias", "knowledge gap"]  # wrong in every form
    assert items[2].causes == []  # right: not asked again
    assert not any("Colour 2?" in p and "Colour 0?" not in p and "Colour 1?" not in p for p, _ in asked)
    assert (f"{BODY}\nAnswer:", [" A", " B", " C"]) in asked
    assert ("Colour 0?\nA. blue\nB. green\nC. red\nAnswer:", [" A", " B", " C"]) in asked
    assert (f"{prompt_of(items[2])} B\n\n{prompt_of(items[0])}", [" A", " B", " C"]) in asked


def test_a_probe_of_a_model_scores_as_the_model_does(tmp_path: Path) -> None:
    import torch

    from tuneloop.models import load_model, load_tokenizer

    name = byte_model(tmp_path / "m", context=64)
    (first, second), none = probe_with(name)([("a b", [" c", " dd"])])[0], probe_with(name)([])
    model, tokenizer = load_model(name), load_tokenizer(name)
    head = tokenizer("a b")["input_ids"]
    tail = tokenizer(" dd", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        logs = model(torch.tensor([head + tail])).logits[0].log_softmax(-1)
    due = sum(float(logs[len(head) - 1 + k, t]) for k, t in enumerate(tail))
    assert second == pytest.approx(due, abs=1e-4) and first != second
    assert none == []


def tune_of(folder: Path, method: str) -> tuple[Path, Path]:
    """(data, tune) with the checkpoints of two steps; the base stands beside them."""
    base, data = tiny_folder(folder / "base"), tiny_data(folder / "data", tiny_examples(24), valid=0)
    settings = {"method": method, "max_steps": 4, "save_steps": 2, "save_total_limit": 3, "learning_rate": 1e-2}
    config = TrainConfig.model_validate(settings | {"per_device_train_batch_size": 4})
    return data, train(config, ModelConfig(name=str(base), template="plain"), data, folder / "model")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tune_of(tmp_path_factory.mktemp("tuned"), "lora")


def test_influence_finds_the_row_itself_and_its_opposite(tuned: tuple[Path, Path]) -> None:
    data, model = tuned
    shown = read_training(data, model)
    row = shown[3]
    same = {"task": "t", "row": "0", "question": row.prompt, "options": [row.answer, "w1"], "gold": 0}
    found = influence_with(str(model))([same], shown)[0]
    assert found["row"] == "0"
    first = found["training"][0]
    assert first["id"] == row.id and first["pull"] == pytest.approx(1.0, abs=1e-3)
    pulls = [line["pull"] for line in found["training"]]
    assert pulls == sorted(pulls, reverse=True) or min(pulls) < 0
    assert all(-1.001 <= pull <= 1.001 for pull in pulls)


def test_influence_stands_in_the_findings_and_wants_an_adapter(tuned: tuple[Path, Path], tmp_path: Path) -> None:
    data, model = tuned
    rows = [option_row("quiz", str(i), gold=0, logprobs=[-3.0, 0.0], options=["w1 w1", "w2 w2"], question=f"w{i} w1")
            for i in range(6)]  # fmt: skip
    scores = write_scores(tmp_path / "tune", rows)
    out = analyze(AnalyzeConfig(influence=2), scores, tmp_path / "a", data=data, influence=influence_with(str(model)))
    found = read_json(out / "findings.json")["influence"]
    assert [line["row"] for line in found] == ["0", "1"]
    known = {example.id for example in read_examples(data, "train")}
    assert all(line["id"] in known for entry in found for line in entry["training"])
    with pytest.raises(UsageError, match="TL-192"):
        influence_with(str(tiny_folder(tmp_path / "whole")))


@pytest.mark.parametrize("method", ["lora", "full"])
def test_every_kept_checkpoint_is_scored_and_set_against_the_base(
    method: str, tuned: tuple[Path, Path], tmp_path: Path
) -> None:
    from tuneloop.evaluate import evaluate

    model = (tuned if method == "lora" else tune_of(tmp_path / "tuned", method))[1]
    base = str(model.parent / "base")
    settings = EvalConfig.model_validate({"metrics": ["perplexity"], "generate_limit": 0})
    test = tiny_data(tmp_path / "data", tiny_examples(4))
    from tuneloop.records import write_examples

    write_examples(test, "test", tiny_examples(12, "test", first=50))
    against = evaluate(settings, ModelConfig(name=base), tmp_path / "base", data=test)
    scores = evaluate(settings, ModelConfig(name=str(model)), tmp_path / "tune", data=test, contender="tune")
    kept = kept_scores(settings, ModelConfig(name=base), model, tmp_path / "kept", test)
    assert list(kept) == ["checkpoint-2", "checkpoint-4"]
    assert not list((tmp_path / "kept").glob(".checkpoint*"))
    values = {name: read_json(folder / "scores.json")["scores"][0]["value"] for name, folder in kept.items()}
    final = read_json(scores / "scores.json")["scores"][0]["value"]
    assert values["checkpoint-4"] == pytest.approx(final, abs=1e-5)  # the last step is what was saved
    assert values["checkpoint-2"] != pytest.approx(final, abs=1e-5)
    out = analyze(AnalyzeConfig(checkpoints=True), scores, tmp_path / "a", against=against, kept=kept)
    lines = read_json(out / "findings.json")["forgetting"]["kept"]
    assert [line["checkpoint"] for line in lines] == ["checkpoint-2", "checkpoint-4"]
    whole = {
        entry["task"]: entry["diff"] for entry in read_json(out / "findings.json")["verdicts"] if entry["headline"]
    }
    assert {t["task"]: t["diff"] for t in lines[1]["tasks"]} == pytest.approx(whole, abs=1e-5)


def test_a_teacher_writes_the_rows_that_a_round_asks_for(tmp_path: Path) -> None:
    """The embedded world with a relation missing: its scripted teacher knows every truth."""
    from tuneloop.world.plant import plant

    plant(tmp_path / "world", 2, ("missing relation",), "high")
    relation = read_json(tmp_path / "world" / "truth.json")["relation"]
    words = {"past": ("did", "once", "was", "before"), "wish": ("wish", "dreams", "would"), "now": ("now", "these")}
    tasks = [{"task": "hellaswag", "data": str(tmp_path / "world" / "tasks" / "questions"), "name": "questions"}]
    rows = {"source": [str(tmp_path / "world" / "train.jsonl")], "test_fraction": 0, "valid_fraction": 0}
    settings: dict[str, Any] = {
        "model": {"name": "world", "template": "plain"}, "data": rows | {"near_duplicates": False},
        "train": {"method": "full", "learning_rate": 5e-4, "num_train_epochs": 1, "per_device_train_batch_size": 16,
                  "dtype": "bfloat16", "save_total_limit": 1},
        "eval": {"tasks": tasks, "test_split": False}, "generate": {"method": "weak_slices"},
        "rounds": {"budget": 12, "control": False},
    }  # fmt: skip
    out = run_rounds(LoopConfig.model_validate(settings), tmp_path / "loop", 2)
    state = read_json(out / "loop.json")
    asked = read_jsonl(out / "round-1" / "asked.jsonl")
    assert asked and all(line["stage"] == "generate" and line["rows"] for line in asked)
    assert 0 < state["rounds"][1]["added"] <= 12
    added = [json.loads(line) for line in (out / "round-1" / "added.jsonl").read_text().splitlines()]
    assert any(word in row["prompt"].split() for row in added for word in words[relation])
    # This teacher does not know who is tested here: its rows about them are left out when the round prepares its rows.
    tested = {str(r["query"]) for r in map(json.loads, _test_rows(tmp_path / "world"))}
    trained = {example.prompt for example in read_examples(out / "round-1" / "data", "train")}
    fresh = {row["prompt"] for row in added} - tested
    assert fresh and fresh <= trained and not tested & trained
    journal = read_jsonl(out / "round-1" / "generated" / "journal.jsonl")
    assert any(line.get("state") == "ok" for line in journal)


def _test_rows(world: Path) -> list[str]:
    import gzip

    path = world / "tasks" / "questions" / "hellaswag" / "validation_clean.jsonl.gz"
    return gzip.decompress(path.read_bytes()).decode().splitlines()


def test_rows_written_for_a_classification_carry_its_labels() -> None:
    from tuneloop.records import Example
    from tuneloop.rounds.asking import labelled

    made = [Example(id=str(i), kind="completion", prompt=f"ask {i}", completion=f" {a}") for i, a in enumerate("aba")]
    found = labelled([*made, Example(id="3", kind="completion", prompt="ask 3", completion=" maybe")], {"a", "b"})
    assert [(e.label, e.messages[0]["content"] if e.messages else "") for e in found] == [
        ("a", "ask 0"), ("b", "ask 1"), ("a", "ask 2"),
    ]  # fmt: skip


def test_a_writer_without_usable_lines_gives_nothing(tmp_path: Path) -> None:
    from tuneloop.rounds.asking import teacher_writer

    writer = teacher_writer(LoopConfig.model_validate({"generate": {"method": "weak_slices"}}), tmp_path / "data")
    assert writer([{"stage": "generate", "rows": []}], 5, tmp_path / "round") == []
