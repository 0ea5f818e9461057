"""The data stage on real sets: counts that add up, and what is known of each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.records import SPLITS, read_examples
from tuneloop.store import read_json

# name -> rows in, kept, format, reasons
KNOWN: dict[str, tuple[int, int, str, dict[str, int]]] = {
    "alpaca": (15130, 15121, "alpaca", {"no_answer": 9}),
    "lamini_docs": (
        1400,
        1391,
        "question_answer",
        {"duplicate": 4, "near_duplicate": 3, "no_answer": 1, "bridges_splits": 1},
    ),
    "dolly": (2996, 2994, "alpaca", {"duplicate": 2}),
    "llamafactory_demo/kto_en_demo.jsonl.gz": (300, 300, "messages", {}),
    "llamafactory_demo/dpo_en_demo.jsonl.gz": (300, 295, "preference", {"duplicate": 5}),
    "mmlu/validation.jsonl.gz": (1531, 1529, "multiple_choice", {"duplicate": 2}),
    "truthfulqa/generation_v1_817.jsonl.gz": (817, 817, "question_answer", {}),
}


def run(folder: Path, out: Path, **settings: Any) -> dict[str, Any]:
    found: dict[str, Any] = read_json(prepare(DataConfig(source=[str(folder)], **settings), out) / "profile.json")
    assert found["rows_in"] == found["kept"] + found["rejected"]
    sides = {split: {row.group for row in read_examples(out, split)} for split in SPLITS}
    assert not sides["train"] & sides["test"] and not sides["train"] & sides["valid"]
    assert not sides["valid"] & sides["test"]
    return found


@pytest.mark.parametrize("name", KNOWN)
def test_real_sets(shared_dir: Path, tmp_path: Path, name: str) -> None:
    rows_in, kept, form, reasons = KNOWN[name]
    found = run(shared_dir / "data" / name, tmp_path / "out")
    assert (found["rows_in"], found["kept"], found["reasons"]) == (rows_in, kept, reasons)
    assert list(found["formats"]) == [form]


def test_banking77_keeps_its_own_test_split(shared_dir: Path, tmp_path: Path) -> None:
    found = run(shared_dir / "data" / "banking77", tmp_path / "out")
    assert found["rows_in"] == 13083 and found["splits"]["test"] == 3080
    assert found["reasons"] == {"in_test": 101, "near_duplicate": 112, "duplicate": 4}
    assert len(found["labels"]) == found["labels_by_split"]["train"] == 77


def test_arc_by_its_hub_name(
    shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNELOOP_DATA", str(shared_dir / "data"))
    monkeypatch.chdir(tmp_path)
    found = run(Path("allenai/ai2_arc:ARC-Easy"), tmp_path / "out")
    assert found["splits"]["test"] == 2376 and found["rows_in"] == 5197
    assert "local copy of allenai/ai2_arc:ARC-Easy" in capsys.readouterr().err
    row = read_examples(tmp_path / "out", "train")[0]
    assert row.prompt and row.prompt.endswith("\nAnswer:") and row.completion and row.completion.startswith(" ")


def test_pairs_and_feedback_keep_both_answers(shared_dir: Path, tmp_path: Path) -> None:
    pairs, marks = (shared_dir / "data" / "llamafactory_demo" / f"{name}_en_demo.jsonl.gz" for name in ("dpo", "kto"))
    run(pairs, tmp_path / "pairs")
    rows = [row for split in SPLITS for row in read_examples(tmp_path / "pairs", split)]
    assert {row.kind for row in rows} == {"preference"}
    for row in rows:
        assert row.messages and row.messages[-1]["role"] == "user"
        assert row.chosen and row.rejected and row.chosen != row.rejected
        assert isinstance(row.chosen, list) and row.chosen[-1]["role"] == "assistant"
    run(marks, tmp_path / "marks")
    found = [row.desirable for split in SPLITS for row in read_examples(tmp_path / "marks", split)]
    assert (found.count(True), found.count(False)) == (150, 150)


def test_show_colours_the_trained_tokens(shared_dir: Path, stories: Path, tmp_path: Path) -> None:
    from tuneloop.data.show import coloured, show
    from tuneloop.models import load_tokenizer
    from tuneloop.prompts import apply_template

    run(shared_dir / "data" / "lamini_docs", tmp_path / "out", limit=20)
    tokenizer = load_tokenizer(str(stories))
    apply_template(tokenizer, "plain")
    row = read_examples(tmp_path / "out", "train")[0]
    text, trained, total = coloured(row, tokenizer)
    assert row.messages is not None
    green = "".join(text.plain[span.start : span.end] for span in text.spans if "green" in str(span.style))
    assert row.messages[-1]["content"] in green and row.messages[0]["content"] not in green
    assert 0 < trained < total
    show(tmp_path / "out", 1, tokenizer, "plain")
