"""Our scorer inside lm-eval against lm-eval's own model class: the three kinds of requests, and a task end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

CONTEXTS = ["Once upon a time, there was a", "Lily had a ball. She", "Lily had a ball. She "]
ENDS = [" little girl", " big red dog who ran", "was", " liked to play"]


@pytest.fixture(scope="module")
def sides(stories: Path) -> tuple[Any, Any]:
    import torch
    from lm_eval.models.huggingface import HFLM

    from tuneloop.models import load_model, load_tokenizer
    from tuneloop.scoring import Scorer
    from tuneloop.scoring.harness import harness_model

    torch.set_num_threads(1)
    model, tokenizer = load_model(str(stories), dtype="float32", device="cpu"), load_tokenizer(str(stories))
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, max_length=128, batch_size=4)
    return harness_model(Scorer(model, max_length=128), tokenizer), theirs


def _calls(kind: str, arguments: list[tuple[Any, ...]]) -> list[Any]:
    from lm_eval.api.instance import Instance

    return [Instance(kind, {}, args, i) for i, args in enumerate(arguments)]


@pytest.mark.filterwarnings("ignore")
def test_requests_are_answered_as_lm_eval_answers_them(sides: tuple[Any, Any]) -> None:
    ours, theirs = sides
    calls = _calls("loglikelihood", [(c, e) for c in [*CONTEXTS, ""] for e in ENDS])
    for (a, greedy), (b, same) in zip(ours.loglikelihood(calls), theirs.loglikelihood(calls), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
        assert greedy == same
    calls = _calls("loglikelihood_rolling", [(CONTEXTS[0],), ("The cat sat. " * 80,), ("",)])
    found = ours.loglikelihood_rolling(calls)
    assert found == pytest.approx(theirs.loglikelihood_rolling(calls), abs=1e-3)
    settings = [{"until": ["."], "max_gen_toks": 24}, {"until": ["\n", " the"], "max_gen_toks": 40, "do_sample": False}]
    calls = _calls("generate_until", [(c, s) for s in settings for c in CONTEXTS])
    assert ours.generate_until(calls) == theirs.generate_until(calls)


TASK = """
task: capitals
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{path}"}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_target: gold
doc_to_choice: "{{{{options}}}}"
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
metadata: {{version: 2.0}}
"""


@pytest.mark.filterwarnings("ignore")
def test_a_task_of_lm_evals_ends_in_a_scores_folder(stories: Path, tmp_path: Path) -> None:
    from tuneloop.config import EvalConfig, ModelConfig
    from tuneloop.evaluate import evaluate
    from tuneloop.store import read_json, read_table

    rows = [{"question": f"{i}. Tom saw a", "options": ["dog", "cat", "zebra"], "gold": i % 3} for i in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "capitals.yaml").write_text(TASK.format(path=tmp_path / "rows.jsonl"))
    config = EvalConfig.model_validate({"tasks": [f"lm-eval:{tmp_path}/capitals.yaml"]})
    out = evaluate(config, ModelConfig(name=str(stories)), tmp_path / "scores")
    [entry] = read_json(out / "scores.json")["scores"]
    table = read_table(out / "rows.parquet").to_pylist()
    assert (entry["task"], entry["metric"], entry["version"], entry["n"]) == ("lm-eval:capitals", "acc", "2.0", 6)
    assert entry["value"] == pytest.approx(sum(r["correct"] for r in table) / 6)
    assert entry["low"] < entry["value"] < entry["high"]
    assert [r["gold"] for r in table] == [0, 1, 2, 0, 1, 2]
    assert all((r["pred"] == r["gold"]) == (r["correct"] == 1.0) for r in table)


@pytest.mark.filterwarnings("ignore")
def test_the_tasks_of_a_group_stay_apart_under_two_numbers_of_shots(stories: Path, tmp_path: Path) -> None:
    from tuneloop.config import EvalConfig, ModelConfig
    from tuneloop.evaluate import evaluate
    from tuneloop.store import read_json, read_table

    rows = [{"question": f"{i}. Tom saw a", "options": ["dog", "cat", "zebra"], "gold": i % 3} for i in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = TASK.format(path=tmp_path / "rows.jsonl")
    for name in ("capitals", "rivers"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("task: capitals", f"task: {name}"))
    (tmp_path / "places.yaml").write_text("group: places\ntask: [capitals, rivers]\n")
    group = {"task": "lm-eval:places", "data": str(tmp_path)}
    config = EvalConfig.model_validate({"tasks": [group | {"shots": 0}, group | {"shots": 1}]})
    out = evaluate(config, ModelConfig(name=str(stories)), tmp_path / "scores")
    table = read_table(out / "rows.parquet").to_pylist()
    names = {f"lm-eval:places:{shots}/{task}" for shots in (0, 1) for task in ("capitals", "rivers")}
    assert {entry["task"] for entry in read_json(out / "scores.json")["scores"]} == names
    assert len({(row["task"], row["row"]) for row in table}) == len(table) == 12


@pytest.mark.filterwarnings("ignore")
def test_lm_eval_reads_what_is_exported(stories: Path, shared_dir: Path, tmp_path: Path) -> None:
    import datasets
    from lm_eval import utils
    from lm_eval.result_schema import SampleResult
    from pydantic import TypeAdapter

    from tuneloop.config import EvalConfig, ModelConfig
    from tuneloop.evaluate import evaluate
    from tuneloop.evaluate.export import export_samples
    from tuneloop.store import read_json

    config = EvalConfig.model_validate({"limit": 3, "tasks": [
        {"task": "arc_easy", "data": str(shared_dir / "data")},
        {"task": "truthfulqa_gen", "data": str(shared_dir / "data")},
    ]})  # fmt: skip
    scores = evaluate(config, ModelConfig(name=str(stories)), tmp_path / "scores")
    files = [str(path) for path in export_samples(scores, tmp_path / "out")]
    samples = utils.get_sample_results_filenames(files)
    assert [utils.get_file_task_name(Path(f).name) for f in samples] == ["arc_easy", "truthfulqa_gen"]
    (results,) = utils.get_results_filenames(files)
    assert utils.get_file_datetime(results).removesuffix(".json") == utils.get_file_datetime(samples[0])
    table = utils.make_table(read_json(results))
    assert "acc_norm" in table and "rougeL_diff" in table
    for file in samples:
        lines = [json.loads(line) for line in Path(file).read_text().splitlines()]
        for line in lines:
            TypeAdapter(SampleResult).validate_python(line)
        loaded = datasets.load_dataset("json", data_files=file, split="train", cache_dir=str(tmp_path / "cache"))
        assert len(loaded) == 3 and set(lines[0]["metrics"]) <= set(loaded.column_names)
    first = json.loads(Path(samples[0]).read_text().splitlines()[0])
    picked = max(range(len(first["resps"])), key=lambda i: float(first["filtered_resps"][i][0]))
    assert first["acc"] == float(picked == int(first["target"]))
