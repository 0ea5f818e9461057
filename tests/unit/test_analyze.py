"""Analysis on synthetic score folders whose causes are planted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from tuneloop.analyze import analyze
from tuneloop.config import AnalyzeConfig
from tuneloop.errors import DataError, UsageError
from tuneloop.store import read_json, read_jsonl, read_table, write_json, write_table


def option_row(task: str, key: str, *, gold: int, logprobs: list[float], **more: Any) -> dict[str, Any]:
    pred = int(np.argmax(logprobs))
    row = {"task": task, "row": key, "group": key, "prompt_hash": "h", "gold": gold, "pred": pred, "pred_norm": pred}
    row |= {"correct": float(pred == gold), "correct_norm": None, "logprobs": logprobs, "lengths": [5] * len(logprobs)}
    row |= {"truncated": False, "tie": False, "options": [f"option {i}" for i in range(len(logprobs))]}
    row |= {"question": f"What is number {key}?", "category": "a", "text_pred": None, "text_gold": None, "flags": []}
    return row | more


def write_scores(folder: Path, rows: list[dict[str, Any]], chance: float = 0.25) -> Path:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    scores = [{"task": t, "metric": "mean_logprob" if "perplexity" in t else "acc", "chance": chance} for t in tasks]
    write_json(folder / "scores.json", {"contender": folder.name, "scores": scores, "warnings": []})
    schema = pa.Table.from_pylist(rows).schema
    write_table(folder / "rows.parquet", pa.Table.from_pylist(rows, schema=schema))
    return folder


def pair(tmp_path: Path, before: list[bool], after: list[bool]) -> tuple[Path, Path]:
    folders = []
    for name, marks in (("base", before), ("tune", after)):
        rows = [
            option_row(
                "quiz", str(i), gold=i % 4, logprobs=[0.0 if k == (i + (not ok)) % 4 else -3.0 for k in range(4)]
            )
            for i, ok in enumerate(marks)
        ]
        folders.append(write_scores(tmp_path / name, rows))
    return folders[0], folders[1]


def run(tmp_path: Path, base: Path | None, tune: Path) -> dict[str, Any]:
    out = analyze(AnalyzeConfig(), tune, tmp_path / "analysis", against=base)
    found: dict[str, Any] = read_json(out / "findings.json")
    return found


def test_better_and_counts(tmp_path: Path) -> None:
    base, tune = pair(tmp_path, [True] * 20 + [False] * 80, [False] * 3 + [True] * 97)
    verdict = run(tmp_path, base, tune)["verdicts"][0]
    assert verdict["verdict"] == "better"
    assert (verdict["b"], verdict["c"]) == (3, 80)
    assert verdict["low"] < verdict["diff"] < verdict["high"]
    tags = read_table(tmp_path / "analysis" / "tags.parquet").to_pylist()
    assert [t["primary"] for t in tags[:3]] == ["forgetting"] * 3
    assert tags[50]["causes"] == ["learned"]


def test_worse_and_undecided_follow_the_test_alone(tmp_path: Path) -> None:
    base, tune = pair(tmp_path, [True] * 100, [True] * 60 + [False] * 40)
    assert run(tmp_path / "w", base, tune)["verdicts"][0]["verdict"] == "worse"
    base, tune = pair(tmp_path / "u", [True] * 50 + [False] * 50, [False] * 2 + [True] * 53 + [False] * 45)
    found = run(tmp_path / "u", base, tune)
    assert found["verdicts"][0]["verdict"] == "no detectable difference"
    assert any("could have shown" in f["what"] for f in found["findings"])


def test_two_versions_of_a_task_are_not_compared(tmp_path: Path) -> None:
    base, tune = pair(tmp_path, [True] * 10, [False] * 10)
    listed = read_json(base / "scores.json")
    write_json(base / "scores.json", {**listed, "scores": [{**listed["scores"][0], "version": "0"}]})
    with pytest.raises(DataError, match="TL-390.*version None on one side and 0 on the other"):
        run(tmp_path, base, tune)


def test_chance_is_named(tmp_path: Path) -> None:
    base, tune = pair(tmp_path, [i % 4 == 0 for i in range(100)], [i % 4 == 1 for i in range(100)])
    found = run(tmp_path, base, tune)
    assert found["verdicts"][0]["at_chance"] is True
    assert any(f["what"].startswith("At chance") for f in found["findings"])


def test_other_rows_are_refused(tmp_path: Path) -> None:
    base, tune = pair(tmp_path, [True] * 30, [True] * 30)
    rows = [option_row("quiz", str(i), gold=i % 4, logprobs=[0.0, -1.0]) for i in range(29)]
    with pytest.raises(DataError, match="1 rows of task 'quiz' differ"):
        analyze(AnalyzeConfig(), write_scores(tmp_path / "fewer", rows), tmp_path / "a", against=base)
    with pytest.raises(UsageError, match="not a scores folder"):
        analyze(AnalyzeConfig(), tmp_path, tmp_path / "b", against=tune)


def test_causes_from_option_scores(tmp_path: Path) -> None:
    plans: dict[str, dict[str, Any]] = {
        "near": {"gold": 1, "logprobs": [-1.0, -1.1, -4.0, -5.0]},
        "sure": {"gold": 1, "logprobs": [0.0, -9.0, -9.5, -9.9]},
        "last": {"gold": 3, "logprobs": [-1.0, -1.0, -1.1, -2.0]},
        "length": {"gold": 1, "logprobs": [-1.0, -1.5, -1.6, -1.7], "correct_norm": 1.0},
        "cut": {"gold": 1, "logprobs": [-1.0, -1.1, -4.0, -5.0], "truncated": True},
    }
    rows = [{"correct_norm": 0.0, **option_row("quiz", key, **plan)} for key, plan in plans.items()]
    out = analyze(AnalyzeConfig(), write_scores(tmp_path / "tune", rows), tmp_path / "a")
    primary = {t["row"]: t["primary"] for t in read_table(out / "tags.parquet").to_pylist()}
    assert primary == {
        "near": "near miss",
        "sure": "confident wrong",
        "last": "never near",
        "length": "length bias",
        "cut": "truncated prompt",
    }
    assert read_json(out / "findings.json")["verdicts"] == []


def test_planted_slice_is_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = []
    for i in range(300):
        bad = i % 5 == 0
        ok = rng.random() < (0.2 if bad else 0.9)
        logprobs = [0.0 if k == (i + (not ok)) % 4 else -1.5 for k in range(4)]
        rows.append(
            option_row("quiz", str(i), gold=i % 4, logprobs=logprobs, category="planted" if bad else f"c{i % 3}")
        )
    out = analyze(AnalyzeConfig(), write_scores(tmp_path / "tune", rows), tmp_path / "a")
    first = read_json(out / "findings.json")["slices"][0]
    assert first["slice"] == "category planted"
    assert first["p_adjusted"] < 0.01
    assert any(line.get("slice") == "category planted" for line in read_jsonl(out / "next_data.jsonl"))


def test_position_bias_is_found(tmp_path: Path) -> None:
    rows = [option_row("quiz", str(i), gold=i % 4, logprobs=[-1.0, -1.2, -1.4, -0.5]) for i in range(120)]
    out = analyze(AnalyzeConfig(), write_scores(tmp_path / "tune", rows), tmp_path / "a")
    assert any(c["cause"] == "position bias" for c in read_json(out / "findings.json")["causes"])


def test_perplexity_and_format_failure(tmp_path: Path) -> None:
    folders = []
    for name, shift in (("base", 0.0), ("tune", 0.5)):
        rows = [option_row("test:perplexity", str(i), gold=0, logprobs=[]) for i in ()]
        for i in range(40):
            blank = {"gold": None, "pred": None, "pred_norm": None, "logprobs": [], "options": [], "correct_norm": None}
            key, noise = str(i), 0.01 * (i % 7)
            rows.append(option_row("test:accuracy", key, gold=0, logprobs=[0.0, -2.0]))
            rows.append(
                {**rows[-1], "task": "test:free_text", "correct": 0.0, "text_pred": "?", "text_gold": "a", **blank}
            )
            rows.append(
                {**rows[-1], "task": "test:perplexity", "correct": -3.0 + shift + noise * shift, "text_pred": None}
            )
        folders.append(write_scores(tmp_path / name, rows))
    found = run(tmp_path, folders[0], folders[1])
    by_task = {v["task"]: v for v in found["verdicts"]}
    assert by_task["test:perplexity"]["verdict"] == "better"
    assert by_task["test:perplexity"]["unit"] == "nats"
    assert by_task["test:accuracy"]["verdict"] == "no detectable difference"
    assert any(c["cause"] == "format failure" and c["rows"] == 40 for c in found["causes"])


def test_same_command_twice_is_skipped(tmp_path: Path) -> None:
    base, tune = pair(tmp_path, [True] * 30, [True] * 30)
    run(tmp_path, base, tune)
    before = (tmp_path / "analysis" / "findings.json").stat().st_mtime_ns
    run(tmp_path, base, tune)
    assert (tmp_path / "analysis" / "findings.json").stat().st_mtime_ns == before
