"""A few steps on real weights and real rows."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.records import Example, example_id, write_examples
from tuneloop.store import open_run, read_json, read_jsonl
from tuneloop.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def real_rows(path: Path, limit: int) -> list[Example]:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][:limit]
    assert rows, f"no question / answer rows in {path}"
    return [
        Example(
            id=f"real-{i}",
            kind="chat",
            messages=[{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}],
        )
        for i, r in enumerate(rows)
    ]


@pytest.mark.parametrize("method", ["full", "lora"])
def test_stories_on_the_course_rows(tmp_path: Path, shared_dir: Path, stories: Path, method: str) -> None:
    examples = real_rows(shared_dir / "data" / "lamini_docs" / "lamini_docs.jsonl.gz", 24)
    assert len({example_id(e) for e in examples}) > 20
    with open_run(tmp_path / "data", stage="data", config={}, inputs={}) as run:
        write_examples(tmp_path / "data", "train", examples[:18])
        write_examples(tmp_path / "data", "valid", examples[18:])
        run.finish()
    config = TrainConfig(
        method="full" if method == "full" else "lora", per_device_train_batch_size=8, max_steps=5, merge=True
    )
    out = train(config, ModelConfig(name=str(stories), template="plain"), tmp_path / "data", tmp_path / "out")
    log = read_jsonl(out / "log.jsonl")
    assert log[-1]["loss"] < log[0]["loss"]
    manifest = read_json(out / "manifest.json")
    assert 0.1 < manifest["trained_tokens_share"] < 0.95
    if method == "lora":
        assert manifest["merge_logit_gap"] < 1e-3
