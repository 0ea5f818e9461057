"""Evaluate on real weights and real rows: ARC and Banking77, a few of each."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tuneloop.config import CompareConfig, EvalConfig, ModelConfig
from tuneloop.evaluate import compare, evaluate, resolve
from tuneloop.evaluate.run import Loaded
from tuneloop.records import Example, write_examples
from tuneloop.store import read_json, read_table


def _rows(path: Path, n: int) -> list[Example]:
    found = []
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for number, line in zip(range(n), file, strict=False):
            row = json.loads(line)
            turns = [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["label"]}]
            found.append(Example(id=str(number), kind="classification", messages=turns, label=row["label"]))
    return found


@pytest.mark.usefixtures("one_thread")
def test_real_rows_end_in_scores_with_intervals(
    stories: Path, shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNELOOP_DATA", str(shared_dir / "data"))
    source = shared_dir / "data" / "banking77"
    write_examples(tmp_path / "data", "train", _rows(source / "train.jsonl.gz", 10_003))
    write_examples(tmp_path / "data", "test", _rows(source / "test.jsonl.gz", 6))
    config = EvalConfig.model_validate({"tasks": ["arc_easy:1", "truthfulqa_mc1"], "limit": 6, "max_new_tokens": 4})
    out = evaluate(
        config, ModelConfig(name=str(stories), template="plain"), tmp_path / "scores", data=tmp_path / "data"
    )
    scores = {(s["task"], s["metric"]): s for s in read_json(out / "scores.json")["scores"]}
    accuracy = scores["test:accuracy", "accuracy"]
    assert accuracy["chance"] == pytest.approx(1 / 77)
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert set(accuracy["baselines"]) == {"majority label", "TF-IDF + logistic regression"}
    assert scores["arc_easy", "acc"]["shots"] == 1
    rows = read_table(out / "rows.parquet").to_pylist()
    assert sum(r["task"] == "test:accuracy" and len(r["logprobs"]) == 77 for r in rows) == 6


@pytest.mark.usefixtures("one_thread")
def test_prompts_on_real_rows_end_in_a_ranking(stories: Path, shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "data" / "banking77"
    rows = _rows(source / "train.jsonl.gz", 300)
    write_examples(tmp_path / "data", "train", rows[:280])
    write_examples(tmp_path / "data", "valid", rows[280:])
    write_examples(tmp_path / "data", "test", _rows(source / "test.jsonl.gz", 80))
    config = EvalConfig(metrics=["accuracy"], limit=8, few_shot=2, thought_tokens=8)
    kinds = ["base", "few_shot_retrieved", "chain_of_thought", "prompt_search"]
    settings = CompareConfig.model_validate({"contenders": kinds, "search_rows": 40, "search_proposals": 1})
    base, loaded, out = ModelConfig(name=str(stories), template="plain"), Loaded(), tmp_path / "compare"
    chosen = resolve(config, settings, base, {}, out, data=tmp_path / "data", loaded=loaded)
    compare(config, chosen, out, settings=settings, data=tmp_path / "data", loaded=loaded)
    found = read_json(out / "contenders.json")
    assert {r["contender"] for r in found["ranking"]} == set(kinds)
    assert all(0 <= r["low"] <= r["value"] <= r["high"] <= 1 and r["seconds"] > 0 for r in found["ranking"])
    shown = read_table(out / "few_shot_retrieved" / "prompts.parquet").to_pylist()
    assert all(p["prompt"].count("</s>") == 2 for p in shown)
    assert found["recommendation"]["do"] in ("prompt", "base", "cannot tell")
