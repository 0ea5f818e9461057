"""Contenders on a tiny random model: what each prompt shows, where choices are made, and what is recommended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.recipe.tiny import byte_model

from tuneloop.config import CompareConfig, EvalConfig, ModelConfig, Prices
from tuneloop.errors import TuneloopError, UsageError
from tuneloop.evaluate import Contender, Prompting, compare, resolve
from tuneloop.evaluate.advice import break_even, recommend
from tuneloop.evaluate.compare import _ranking
from tuneloop.evaluate.paired import Scored
from tuneloop.evaluate.prompting import THINK, Prompter, question_of
from tuneloop.evaluate.run import Loaded
from tuneloop.evaluate.search import best_tune
from tuneloop.evaluate.split import drawn
from tuneloop.evaluate.tables import compare_lines, run_lines
from tuneloop.evaluate.thinking import vote
from tuneloop.neighbours.bm25 import Bm25
from tuneloop.records import Example, write_examples
from tuneloop.store import read_json, read_table


def row(i: int, split: str) -> Example:
    label = ("lost", "late", "fee")[i % 3]
    text = f"{('my card is lost', 'the transfer is late', 'why this fee')[i % 3]} number {i}"
    turns = [{"role": "user", "content": text}, {"role": "assistant", "content": label}]
    return Example(id=f"{split}{i}", split=split, kind="classification", messages=turns, label=label)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    for split, n in (("train", 18), ("valid", 12), ("test", 9)):
        write_examples(folder, split, [row(i, split) for i in range(n)])
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_model(tmp_path_factory.mktemp("model"), context=256)


@pytest.fixture(scope="module")
def compared(data: Path, model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All contenders, with two copies of the model as tunes."""
    out = tmp_path_factory.mktemp("compare")
    config = EvalConfig(metrics=["accuracy"], few_shot=2, thought_tokens=4)
    settings = CompareConfig(search_rows=60, samples=2, prices=Prices(hour=1.0))
    base, loaded = ModelConfig(name=model, template="plain"), Loaded()
    tunes = {"one": Path(model), "two": Path(model)}
    with pytest.raises(TuneloopError, match="no chat template"):  # a tune must bring its own
        resolve(config, settings, base, tunes, data / "none", data=data, loaded=Loaded())
    settings = settings.model_copy(
        update={
            "contenders": [
                "base", "instructions", "few_shot", "few_shot_retrieved", "chain_of_thought", "self_consistency",
                "prompt_search",
            ]
        }
    )  # fmt: skip
    chosen = resolve(config, settings, base, {}, out, data=data, loaded=loaded)
    chosen.append(Contender("tune", base, tuned=True, train_seconds=60.0))
    return compare(config, chosen, out, settings=settings, data=data, loaded=loaded)


def test_every_contender_answers_the_same_rows_in_its_own_words(compared: Path) -> None:
    def prompts(name: str) -> list[str]:
        known = {r["prompt_hash"]: r["prompt"] for r in read_table(compared / name / "prompts.parquet").to_pylist()}
        return [known[r["prompt_hash"]] for r in read_table(compared / name / "rows.parquet").to_pylist()]

    listed = read_json(compared / "contenders.json")
    names = [c["name"] for c in listed["contenders"]]
    rows = {n: read_table(compared / n / "rows.parquet").to_pylist() for n in names}
    assert all([r["row"] for r in rows[n]] == [r["row"] for r in rows["base"]] for n in names)
    assert all("The labels are: fee, late, lost." in p for p in prompts("instructions"))
    assert all(p.count("number") == 3 for p in prompts("few_shot"))
    # BM25 finds the rows about the same thing: both shots carry the label of the question.
    for p, r in zip(prompts("few_shot_retrieved"), rows["few_shot_retrieved"], strict=True):
        assert p.count(r["text_gold"] + "</s>") == 2
    assert all(len(r["samples"]) == 2 for r in rows["self_consistency"])
    assert [len(r["samples"]) for r in rows["chain_of_thought"]] == [1] * 9
    assert all(
        r["answer_tokens"] > s["answer_tokens"] for r, s in zip(rows["chain_of_thought"], rows["base"], strict=True)
    )
    assert all(abs(sum(r["probabilities"]) - 1) < 1e-9 for r in rows["base"])


def test_the_test_split_is_touched_once_and_the_number_tried_is_told(compared: Path) -> None:
    found = read_json(compared / "contenders.json")
    assert found["tried"]["on_test"] == 8
    assert found["tried"]["chosen_on_valid_from"]["prompt_search"] >= 2
    # 7 against the base, and the tune against the 6 prompts.
    assert len(found["verdicts"]) == 13 == found["tried"]["tests"]
    assert all(v["p_adjusted"] >= v["p"] for v in found["verdicts"])
    trail = read_json(compared / "search" / "search.json")
    assert trail["rows_scored"] <= 60 and trail["rounds"][0]["rows"] >= 10
    text = "\n".join(compare_lines(found))
    assert "8 contenders touched the test split" in text and "recommendation:" in text
    assert max(map(len, text.splitlines())) <= 100
    assert len(run_lines([compared / "base", compared / "tune"])) >= 2


@pytest.mark.parametrize("name", ["search", "choice", "a/b"])
def test_a_contender_needs_a_folder_of_its_own(name: str, model: str, data: Path, tmp_path: Path) -> None:
    config, one = EvalConfig(), ModelConfig(name=model)
    with pytest.raises(UsageError, match="126"):
        compare(config, [Contender(name, one)], tmp_path / "out", data=data)
    with pytest.raises(UsageError, match="126"):  # before a search has cost anything
        resolve(config, CompareConfig(), one, {name: Path(model)}, tmp_path / "out", data=data, loaded=Loaded())
    assert not (tmp_path / "out").exists()


def test_a_contender_called_data_leaves_the_data_in_the_key(data: Path, model: str, tmp_path: Path) -> None:
    config, tune = EvalConfig(metrics=["accuracy"]), ModelConfig(name=model, template="plain")
    compare(config, [Contender("data", tune)], tmp_path / "compare", data=data)
    best_tune(config, {"data": tune}, data, tmp_path / "choice", Loaded())
    for stage in ("compare", "choice"):
        inputs = read_json(tmp_path / stage / "manifest.json")["inputs"]
        assert {name: entry["name"] for name, entry in inputs.items()} == {"data": str(data), "model:data": model}


def test_a_second_try_with_other_words_is_counted(compared: Path, data: Path, model: str, tmp_path: Path) -> None:
    config, base = EvalConfig(metrics=["accuracy"]), ModelConfig(name=model, template="plain")
    once = [Contender("base", base), Contender("prompt", base, Prompting(instruction="Sort."), benchmarks=False)]
    twice = [once[0], Contender("prompt", base, Prompting(instruction="Sort well."), benchmarks=False)]
    for _ in range(2):  # the same again is no second touch
        assert read_json(compare(config, once, tmp_path, data=data) / "contenders.json")["tried"]["on_test"] == 2
    with pytest.raises(TuneloopError, match="113"):
        compare(config, twice, tmp_path, data=data)
    written = (tmp_path / "base" / "manifest.json").stat().st_mtime_ns
    again = read_json(compare(config, twice, tmp_path, data=data, overwrite=True) / "contenders.json")
    assert (tmp_path / "base" / "manifest.json").stat().st_mtime_ns == written  # the base is as it was
    manifest = read_json(tmp_path / "manifest.json")
    assert manifest["stage"] == "compare" and set(manifest["inputs"]) == {"data", "model:base", "model:prompt"}
    assert manifest["config"]["contenders"][0]["model"]["name"] == model
    assert {"contenders.json", "test_uses.jsonl", "run.json"} == set(manifest["files"])
    assert again["tried"] == {"on_test": 3, "chosen_on_valid_from": {}, "tests": 2}


def test_choices_need_valid_rows_and_tunes(data: Path, model: str, tmp_path: Path) -> None:
    write_examples(tmp_path / "bare", "train", [row(i, "train") for i in range(6)])
    base = ModelConfig(name=model, template="plain")
    for kind, folder, code in (("prompt_search", tmp_path / "bare", "156"), ("tune", data, "157")):
        settings = CompareConfig.model_validate({"contenders": ["base", kind]})
        with pytest.raises(TuneloopError, match=code):
            resolve(EvalConfig(), settings, base, {}, tmp_path / kind, data=folder, loaded=Loaded())


def test_shots_never_hold_the_row_itself_and_give_way_to_room() -> None:
    pool = [row(i, "train") for i in range(18)]
    for retrieved in (True, False):
        prompter = Prompter(Prompting(shots=4, retrieved=retrieved), pool)
        assert all(e.id not in {s.id for s in prompter.shots(e)} for e in pool)
    prompter = Prompter(Prompting(shots=4, retrieved=True), pool)
    asked = row(100, "test")
    nearest = prompter.shots(asked)[-1]
    shown = prompter.fitting(asked, lambda e: len(e.messages or []), 4)
    assert [m["content"] for m in (shown.messages or [])][:1] == [question_of(nearest)]
    assert prompter.fewer == 1


def test_bm25_ranks_by_rare_words() -> None:
    index = Bm25(["the card is lost", "the fee is high", "the card fee", ""])
    assert index.nearest("where is my lost card", 2)[0] == 0
    assert index.scores("the")[0] < index.scores("lost")[0]
    assert index.nearest("zebra", 2) == [0, 1]


def test_votes() -> None:
    assert vote(["a", "B", "b "], lambda t: t.strip().lower()) == 1
    assert vote(["x", "y"], str) == 0
    assert THINK


def entry(name: str, value: float, *, tuned: bool = False, prompted: bool = False, seconds: float = 1.0) -> Any:
    return {
        "contender": name, "task": "t", "value": value, "tuned": tuned, "prompted": prompted, "usd": None,
        "seconds": seconds,
    }  # fmt: skip


def test_advice_follows_the_verdicts() -> None:
    ranking = [entry("tune", 0.8, tuned=True), entry("few_shot", 0.5, prompted=True), entry("base", 0.3)]

    def verdicts(**words: str) -> list[Any]:
        pairs = {"tb": ("tune", "base"), "pb": ("few_shot", "base"), "tp": ("tune", "few_shot")}
        diffs = {"better": 0.2, "worse": -0.2, "no detectable difference": 0.01}
        width = 0.05
        return [
            {
                "contender": a, "against": b, "task": "t", "verdict": words[k], "n": 100, "b": 5, "c": 8,
                "diff": diffs[words[k]], "low": diffs[words[k]] - width, "high": diffs[words[k]] + width,
                "detectable": 0.1,
            }
            for k, (a, b) in pairs.items()
        ]  # fmt: skip

    same = "no detectable difference"
    settings = CompareConfig()
    assert recommend(ranking, verdicts(tb="better", pb="better", tp="better"), settings)["do"] == "tune"
    assert recommend(ranking, verdicts(tb="better", pb="better", tp="worse"), settings)["do"] == "prompt"
    assert recommend(ranking, verdicts(tb=same, pb="better", tp=same), settings)["do"] == "prompt"
    unsure = recommend(ranking, verdicts(tb="better", pb="better", tp=same), settings)
    assert (
        unsure["do"] == "cannot tell" and "n is too small" in unsure["reason"] and "rows would show" in unsure["reason"]
    )
    assert recommend(ranking, verdicts(tb=same, pb=same, tp=same), settings)["do"] == "cannot tell"
    shared = [v | {"clusters": 4} for v in verdicts(tb=same, pb=same, tp=same)]
    # Three tests at 5 %: 2^(1 - 7) * 3 is the first below it; 4 * (10 / 2)^2 sources show 2 points instead of 10.
    assert (
        "from 4 sources" in (reason := recommend(ranking, shared, settings)["reason"]) and "take 100 sources" in reason
    )
    wide = CompareConfig(margin=0.1)
    assert recommend(ranking, verdicts(tb=same, pb=same, tp=same), wide)["do"] == "base"
    assert recommend(ranking, verdicts(tb="better", pb="better", tp=same), wide)["do"] == "prompt"


def test_break_even_in_dollars_or_seconds() -> None:
    tune = Contender("tune", ModelConfig(), tuned=True, train_seconds=3600.0)
    cheap, dear = {"usd": 0.001, "seconds": 1.0}, {"usd": 0.003, "seconds": 3.0}
    assert break_even(cheap, dear, tune, Prices(hour=2.0))["calls"] == 1000
    unknown = {"usd": None}
    seconds = break_even({**cheap, **unknown}, {**dear, **unknown}, tune, Prices())
    assert (seconds["unit"], seconds["calls"]) == ("seconds", 1800)
    assert break_even(dear, cheap, tune, Prices(hour=2.0))["calls"] is None


def test_a_limit_draws_from_the_whole_split() -> None:
    rows = [row(3 * (i % 40) + i // 40, "test") for i in range(120)]  # sorted by label, as published files are
    few, more = drawn(rows, 20, 0), drawn(rows, 60, 0)
    assert {e.label for e in few} == {"lost", "late", "fee"}
    assert [e for e in more if e in few] == few and drawn(rows, 20, 1) != few
    assert drawn(rows, None, 0) is rows


def test_the_lowest_perplexity_leads() -> None:
    names = {"base": 20.0, "few_shot": 7.4, "tune": 9.0}
    contenders = [Contender(name, ModelConfig(), tuned=name == "tune") for name in names]
    head = {"metric": "perplexity", "n": 2, "low": 1.0, "high": 99.0, "chance": None, "task": "test:perplexity"}
    found = [
        Scored(name, Path(name), [head | {"value": value}], {"test:perplexity": {"a": {}}})
        for name, value in names.items()
    ]
    ranking = _ranking(contenders, found, "test:perplexity", [], CompareConfig())
    assert [r["contender"] for r in ranking] == ["few_shot", "tune", "base"]
