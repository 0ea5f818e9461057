"""Evaluate on a tiny random model: scores, rows, resume, contenders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.recipe.tiny import byte_model

from tuneloop.config import EvalConfig, ModelConfig
from tuneloop.errors import TuneloopError
from tuneloop.evaluate import Contender, Prompting, compare, evaluate
from tuneloop.evaluate.tables import score_lines
from tuneloop.records import Example, write_examples
from tuneloop.store import read_json, read_table


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_model(tmp_path_factory.mktemp("model"), context=256)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def row(i: int, split: str) -> Example:
        label = ("yes", "no", "perhaps")[i % 3]
        turns = [{"role": "user", "content": f"word{i % 3} {i}"}, {"role": "assistant", "content": label}]
        return Example(id=f"{split}{i}", split=split, kind="classification", messages=turns, label=label)

    for split, n in (("train", 12), ("test", 6)):
        write_examples(tmp_path / "data", split, [row(i, split) for i in range(n)])
    return tmp_path / "data"


@pytest.fixture
def arc(tmp_path: Path) -> Path:
    folder = tmp_path / "tasks" / "arc_easy"
    folder.mkdir(parents=True)
    choices = {"text": ["a", "b b", "ccc"], "label": ["1", "2", "3"]}
    rows = [{"id": f"r{i}", "question": f"q{i}?", "choices": choices, "answerKey": str(i % 3 + 1)} for i in range(6)]
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return tmp_path / "tasks"


def test_contenders_are_scored_on_the_same_rows(model: str, data: Path, arc: Path, tmp_path: Path) -> None:
    config = EvalConfig.model_validate({"tasks": [{"task": "arc_easy", "data": str(arc)}], "max_new_tokens": 4})
    base = ModelConfig(name=model, template="plain")
    chosen = [Contender("base", base), Contender("prompted", base, Prompting(shots=2))]
    out = compare(config, chosen, tmp_path / "compare", data=data)
    assert [c["name"] for c in read_json(out / "contenders.json")["contenders"]] == ["base", "prompted"]
    first, second = (read_table(out / n / "rows.parquet").to_pylist() for n in ("base", "prompted"))
    assert [(r["task"], r["row"], r["gold"]) for r in first] == [(r["task"], r["row"], r["gold"]) for r in second]
    assert [r["logprobs"] for r in first] != [r["logprobs"] for r in second]
    scores = {(s["task"], s["metric"]): s for s in read_json(out / "base" / "scores.json")["scores"]}
    assert scores["arc_easy", "acc"]["chance"] == pytest.approx(1 / 3)
    assert scores["test:accuracy", "accuracy"]["n"] == 6
    assert scores["test:accuracy", "accuracy"]["baselines"]["TF-IDF + logistic regression"] == 1.0
    assert scores["test:perplexity", "perplexity"]["value"] > 1
    assert ("test:free_text", "free_text") in scores
    assert not (out / "base" / "partial").exists()


def test_finished_tasks_are_not_scored_again(
    model: str, arc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tuneloop.evaluate.run as module

    tasks = [{"task": "arc_easy", "data": str(arc)}, {"task": "arc_easy", "data": str(arc), "shots": 1, "name": "one"}]
    config = EvalConfig.model_validate({"tasks": tasks})
    asked: list[str] = []
    real = module.run_task

    def dying(spec, *rest):  # type: ignore[no-untyped-def]
        asked.append(spec.name or spec.task)
        if asked == ["arc_easy", "one"]:
            raise KeyboardInterrupt
        return real(spec, *rest)

    monkeypatch.setattr(module, "run_task", dying)
    with pytest.raises(KeyboardInterrupt):
        evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    assert asked == ["arc_easy", "one", "one"]


def test_a_mended_task_file_costs_that_task_alone(
    model: str, arc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tuneloop.evaluate.run as module

    own = tmp_path / "own.py"
    own.write_text(WRITTEN.replace('("half", 0.5)', '("half", "much")'))
    asked: list[str] = []
    real = module.run_task

    def counting(spec, *rest):  # type: ignore[no-untyped-def]
        asked.append(Path(spec.task).stem)
        return real(spec, *rest)

    monkeypatch.setattr(module, "run_task", counting)
    config = EvalConfig.model_validate({"tasks": [{"task": "arc_easy", "data": str(arc)}, str(own)]})
    with pytest.raises(TuneloopError, match="397"):
        evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    own.write_text(WRITTEN)
    out = evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    assert asked == ["arc_easy", "own", "own"]
    assert [s["task"] for s in read_json(out / "scores.json")["scores"]][:2] == ["arc_easy", "arc_easy"]
    assert not (out / "partial").exists()


def test_nothing_to_score_is_a_coded_error(model: str, tmp_path: Path) -> None:
    with pytest.raises(TuneloopError, match="125"):
        evaluate(EvalConfig(), ModelConfig(name=model), tmp_path / "scores")
    for wrong in (tmp_path, tmp_path / "none"):  # any other folder is not even hashed
        with pytest.raises(TuneloopError, match="115"):
            evaluate(EvalConfig(), ModelConfig(name=model), tmp_path / "scores", data=wrong)


def test_draws_of_shots_are_told_apart_from_sampling(model: str, data: Path, arc: Path, tmp_path: Path) -> None:
    config = EvalConfig.model_validate(
        {"tasks": [{"task": "arc_easy", "data": str(arc), "shots": 2}], "shot_seeds": 3, "metrics": ["accuracy"]}
    )
    out = evaluate(
        config, ModelConfig(name=model, template="plain"), tmp_path / "s", data=data, prompting=Prompting(shots=2)
    )
    for entry in read_json(out / "scores.json")["scores"]:
        if entry["metric"] in ("acc", "accuracy"):
            assert len(entry["seeds"]["means"]) == 3 and entry["seeds"]["means"][0] == entry["value"]
            assert 0 <= entry["seeds"]["seed_effect"] <= entry["seeds"]["seed_sd"] + 1e-12


def test_metrics_that_are_named_are_the_only_ones(model: str, data: Path, tmp_path: Path) -> None:
    base = ModelConfig(name=model, template="plain")
    config = EvalConfig(metrics=["similarity", "perplexity"], max_new_tokens=4)
    found = read_json(evaluate(config, base, tmp_path / "s", data=data) / "scores.json")["scores"]
    assert [(s["task"], s["metric"]) for s in found] == [
        ("test:free_text", "similarity"), ("test:perplexity", "perplexity"),
    ]  # fmt: skip
    with pytest.raises(TuneloopError, match="similarity"):
        evaluate(EvalConfig(metrics=["similarty"]), base, tmp_path / "t", data=data)


def test_rows_with_options_are_a_choice(model: str, tmp_path: Path) -> None:
    rows = [
        Example(id=f"r{i}", kind="completion", prompt=f"Question: {i}?\nAnswer:", completion=" bb",
                meta={"options": ["a", "bb", "ccc"], "gold": 1}, group=f"g{i // 2}")
        for i in range(6)
    ]  # fmt: skip
    for split in ("train", "test"):
        write_examples(tmp_path / "data", split, rows)
    config = EvalConfig(metrics=["accuracy"])
    out = evaluate(config, ModelConfig(name=model, template="plain"), tmp_path / "s", data=tmp_path / "data")
    scores = {s["metric"]: s for s in read_json(out / "scores.json")["scores"]}
    assert scores["acc"]["chance"] == pytest.approx(1 / 3) and scores["acc"]["baselines"]["always the longest"] == 0.0
    assert scores["acc"]["baselines"]["always option 2"] == 1.0
    row = read_table(out / "rows.parquet").to_pylist()[0]
    assert row["options"] == ["a", "bb", "ccc"] and len(row["logprobs"]) == 3 and row["gold"] == 1
    assert len(row["greedy"]) == 3 and row["prompt_tokens"] > 0


def test_a_judge_that_says_nothing_readable_scores_nothing(model: str, data: Path, tmp_path: Path) -> None:
    base = ModelConfig(name=model, template="plain")
    config = EvalConfig.model_validate(
        {"metrics": ["exact_match", "judge"], "judge": {"model": model, "template": "plain"}, "max_new_tokens": 4}
    )
    out = evaluate(config, base, tmp_path / "s", data=data)
    scores = {s["metric"]: s for s in read_json(out / "scores.json")["scores"]}
    assert scores["judge"]["value"] is None and scores["judge"]["n"] == 0
    assert "could not be read on 6 of 6" in scores["judge"]["note"]
    rows = read_table(out / "rows.parquet").to_pylist()
    assert all(r["score_judge"] is None and "judge unread" in r["flags"] and r["correct"] is not None for r in rows)
    assert len("\n".join(score_lines(list(scores.values())))) > 0
    with pytest.raises(ValueError, match=r"eval.judge.model"):
        EvalConfig(metrics=["judge"])


WRITTEN = """
from tuneloop.tasks import Item, Task

def item(doc):
    return Item(doc["q"], ["yes"], [0])

def grade(text, item):
    found = [("half", 0.5), ("length", float(len(text)))]
    return dict(found if len(item.prompt) > 9 else found[::-1])

TASK = Task("own", "1", lambda split: [{"q": "word " * 99}, {"q": "short"}], item, grade=grade, max_new_tokens=4)
"""


@pytest.fixture(scope="module")
def broken(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The model with a weight that is no number."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = str(tmp_path_factory.mktemp("broken"))
    loaded = AutoModelForCausalLM.from_pretrained(model)
    with torch.no_grad():
        loaded.model.norm.weight.fill_(float("nan"))
    loaded.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("task", ["truthfulqa_mc1", "arc_easy", "own"])
def test_weights_of_nan_end_in_an_error_and_no_score(broken: str, arc: Path, tmp_path: Path, task: str) -> None:
    folder = arc / "truthfulqa"
    folder.mkdir()
    targets = {"choices": ["right", "wrong"], "labels": [1, 0]}
    row = {"question": "q?", "mc1_targets": targets, "mc2_targets": targets}
    (folder / "validation.jsonl").write_text((json.dumps(row) + "\n") * 3)
    (tmp_path / "own.py").write_text(WRITTEN)
    name = str(tmp_path / "own.py") if task == "own" else task
    config = EvalConfig.model_validate({"tasks": [{"task": name, "data": str(arc)}]})
    with pytest.raises(TuneloopError, match="378"):
        evaluate(config, ModelConfig(name=broken), tmp_path / "scores")
    assert not (tmp_path / "scores" / "scores.json").exists()


def test_rows_of_a_benchmark_say_what_an_answer_took(model: str, arc: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(WRITTEN)
    config = EvalConfig.model_validate({"tasks": [{"task": "arc_easy", "data": str(arc)}, str(tmp_path / "own.py")]})
    out = evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    rows = read_table(out / "rows.parquet").to_pylist()
    for row in rows[:6]:  # a byte is a token
        assert row["prompt_tokens"] == len("Question: q0?\nAnswer:")
        assert row["answer_tokens"] == len(" " + row["options"][row["pred"]])
    long, short = rows[6:]
    assert (long["truncated"], short["truncated"]) == (True, False)
    assert long["prompt_tokens"] == 256 - 4 and short["prompt_tokens"] == len("short")
    assert [r["score_half"] for r in rows[6:]] == [r["correct"] for r in rows[6:]] == [0.5, 0.5]
    (tmp_path / "own.py").write_text(WRITTEN.replace('"short"', '"other"'))
    with pytest.raises(TuneloopError, match="113"):  # another task file is another run
        evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    assert "1 of 2 rows lost the beginning" in "\n".join(read_json(out / "scores.json")["warnings"])


def test_a_quick_run_says_what_it_can_detect(
    model: str, arc: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = EvalConfig.model_validate({"tasks": [{"task": "arc_easy", "data": str(arc)}], "quick": True})
    out = evaluate(config, ModelConfig(name=model), tmp_path / "scores")
    for entry in read_json(out / "scores.json")["scores"]:
        assert 0.2 < entry["detectable"] < 1.0  # six rows show little
    assert "detectable 0." in capsys.readouterr().err


def test_room_for_an_answer_is_the_same_after_a_config_was_written_and_read() -> None:
    config = EvalConfig.model_validate(EvalConfig().model_dump())
    assert config == EvalConfig() and config.max_new_tokens is None
