"""The real 175 seed tasks: read, used as examples, and the filter on real instructions."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tuneloop.config import GenerateConfig
from tuneloop.generate import generate
from tuneloop.lm.batching import Batching
from tuneloop.neighbours.similar import Similar, common_length, f_measure, rouge_tokens
from tuneloop.store import read_json
from tuneloop.teacher import WorldTeacher, prepare_seeds


@pytest.fixture(scope="module")
def seed_tasks(shared_dir: Path) -> Path:
    return shared_dir / "data" / "self_instruct" / "seed_tasks.jsonl.gz"


def test_rows_from_the_seed_tasks_name_their_parents(seed_tasks: Path, tmp_path: Path) -> None:
    settings = GenerateConfig.model_validate(
        {"method": "self_instruct", "seeds": [str(seed_tasks)], "limits": {"rows": 20}, "filters": {"similarity": None}}
    )
    out = generate(settings, WorldTeacher(), tmp_path / "out", prepare=prepare_seeds)
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(rows) == 20
    assert all(len(row["parents"]) == 8 and "split" not in row["generator"] for row in rows)
    assert read_json(out / "summary.json")["diversity"]["seeds"]["n"] == 175


def test_a_model_in_this_process_is_a_teacher(stories: Path, tmp_path: Path) -> None:
    teacher = Batching.load(str(stories), template="plain")
    stop = teacher.tokenizer.encode("cat.", add_special_tokens=False)[-1]
    teacher.model.generation_config.eos_token_id = stop  # a story has no end of turn: this one ends with a sentence
    (tmp_path / "seeds.jsonl").write_text(
        "".join(json.dumps({"question": f"Tell me about {name}.", "answer": f"{name} is here."}) + "\n"
                for name in ("Lily", "Tom", "a red dog", "the sun", "Mum", "a boat"))
    )  # fmt: skip
    settings = GenerateConfig.model_validate(
        {"method": "regenerate", "seeds": [str(tmp_path / "seeds.jsonl")], "best_of": 3, "verify": ["arithmetic"],
         "teacher": {"name": str(stories), "max_new_tokens": 60}, "filters": {"near_duplicate": None}}
    )  # fmt: skip
    sizes: list[int] = []
    hook = teacher.model.register_forward_hook(lambda _, args, kw, out: sizes.append(len(out.logits)), with_kwargs=True)
    out = generate(settings, teacher, tmp_path / "out", prepare=prepare_seeds)
    hook.remove()
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    summary = read_json(out / "summary.json")
    assert len(rows) >= 3
    assert summary["candidates"] == 6 == summary["accepted"] + sum(summary["dropped"].values())
    assert all(len(row["messages"][-1]["content"].split()) > 2 for row in rows)
    assert max(sizes) > 1  # asked together, decoded together
    assert summary["calls"]["calls"] == 18 and summary["tokens_out"] > 18
    assert summary["cost_usd"] is None


def test_decisions_on_real_instructions_are_those_of_the_full_scan(shared_dir: Path) -> None:
    index, pool = Similar(0.5), list[list[str]]()
    with gzip.open(shared_dir / "data" / "alpaca" / "alpaca_subset.jsonl.gz", "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["instruction"] for line, _ in zip(lines, range(1200), strict=False)]
    hits = 0
    for text in texts:
        tokens = rouge_tokens(text)
        close = any(f_measure(common_length(held, tokens), len(held), len(tokens)) > 0.5 for held in pool)
        assert (index.find(text) is not None) == close
        hits += close
        if not close:
            index.add(text)
            pool.append(tokens)
    assert hits > 20
