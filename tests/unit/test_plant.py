"""What the instrument plants is there, where it says it is, and nowhere else."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from tuneloop.store import read_jsonl
from tuneloop.world.plant import DEFECTS, plant

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tuneloop"


def read(folder: Path, task: str = "questions") -> list[dict[str, Any]]:
    path = folder / "tasks" / task / "hellaswag" / "validation_clean.jsonl.gz"
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clean")
    plant(folder, 0)
    return folder


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_changes_rows_or_benchmark_and_nothing_else(defect: str, clean: Path, tmp_path: Path) -> None:
    truth = plant(tmp_path, 0, (defect,))["defects"][defect]
    in_test = defect in ("wrong gold", "truncated prompts", "length-biased options")
    train = read_jsonl(tmp_path / "train.jsonl")
    assert (train == read_jsonl(clean / "train.jsonl")) == in_test
    changed = [i for i, (a, b) in enumerate(zip(read(clean), read(tmp_path), strict=True)) if a != b]
    assert changed == (truth["test"]["questions"] if in_test else [])
    if truth["train"]:
        assert max(truth["train"]) <= len(train)


def test_the_truth_names_the_rows(clean: Path, tmp_path: Path) -> None:
    found = plant(tmp_path, 0, ("leaked test rows", "conflicting duplicates"))["defects"]
    train = read_jsonl(tmp_path / "train.jsonl")
    prompts = [row["prompt"] for row in train]
    questions = read(tmp_path)
    leaked = set(found["leaked test rows"]["test"]["questions"])
    assert {i for i, row in enumerate(questions) if row["query"] in prompts} == leaked
    for line in found["conflicting duplicates"]["train"]:
        answers = {row["completion"] for row in train if row["prompt"] == prompts[line - 1]}
        assert len(answers) == 2
    pool = {row["prompt"] for row in read_jsonl(clean / "pool.jsonl")}
    assert pool and not pool & {row["prompt"] for row in read_jsonl(clean / "train.jsonl")}
    assert not pool & {row["query"] for row in read(clean)}


def test_analysis_knows_neither_the_world_nor_its_truth() -> None:
    for path in [*(SOURCE / "analyze").glob("*.py"), *(SOURCE / "neighbours").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"tuneloop\.world|truth\.json|world\.plant", text), path
