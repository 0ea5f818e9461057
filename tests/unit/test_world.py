"""The embedded world: same for the same seed, no test fact in the tuning rows, schemas as the real files have them."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tuneloop import world
from tuneloop.world.facts import make

Row = dict[str, Any]
needs_base = pytest.mark.skipif(not (world.base_dir() / "model.safetensors").is_file(), reason="no base here")


def rows(path: Path) -> list[Row]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("world")
    world.write(out, corpus_documents=50)
    return out


def test_same_seed_same_bytes_other_seed_other_world(folder: Path, tmp_path: Path) -> None:
    world.write(tmp_path / "again", corpus_documents=50)
    world.write(tmp_path / "other", 1, corpus_documents=50)
    names = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert len(names) == 11
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert (folder / "corpus.jsonl").read_bytes() != (tmp_path / "other" / "corpus.jsonl").read_bytes()


def words(text: str) -> str:
    return f" {''.join(c if c.isalnum() else ' ' for c in text.lower())} "


def test_no_test_fact_stands_in_the_tuning_rows(folder: Path) -> None:
    w = make(0)
    tuning = [words(r["prompt"] + r["completion"]) for r in rows(folder / "instructions.jsonl")]
    held = {e for e, part in w.splits.items() if part != "tune"}
    facts = [(n, v) for n, a in w.people.items() if n in held for values in a.values() for v in values.values()]
    facts += [(n, v) for n, values in w.places.items() if n in held for v in values.values()]
    facts += [(n, v) for n, (_, *values) in w.beliefs.items() if n in held for v in values]
    assert len(facts) > 1000
    for entity in {n for n, _ in facts}:
        near = [text for text in tuning if words(entity) in text]
        # A held-out place may be the home of a tuned person; of a person or a thing not even the name may occur.
        assert not near or entity in w.places
        for value in [v for n, v in facts if n == entity]:
            assert not [text for text in near if words(value) in text], (entity, value)


def test_the_parts_share_no_entity_and_the_benchmarks_are_about_the_test_part(folder: Path) -> None:
    w = make(0)
    known = [*w.people, *w.beliefs]
    for row in rows(folder / "tasks/arc_easy/test.jsonl.gz"):
        assert not [n for n in w.people if words(n) in words(row["question"]) and w.splits[n] != "test"]
    for row in rows(folder / "tasks/truthfulqa/multiple_choice_v1_817.jsonl.gz"):
        named = [n for n in known if words(n) in words(row["question"])]
        assert named and all(w.splits[n] == "test" for n in named)


def test_schemas_match_the_real_benchmarks(folder: Path) -> None:
    tasks = folder / "tasks"
    for split in ("train", "validation", "test"):
        for row in rows(tasks / f"arc_easy/{split}.jsonl.gz"):
            assert {"id", "question", "choices", "answerKey"} <= set(row)
            assert len(set(row["choices"]["text"])) == len(row["choices"]["label"])
            assert row["answerKey"] in row["choices"]["label"]
    for row in rows(tasks / "hellaswag/validation_clean.jsonl.gz"):
        assert {"row", "activity_label", "domain", "query", "query_raw", "choices", "gold"} <= set(row)
        assert 0 <= row["gold"] < len(set(row["choices"])) == 4
    for split in ("dev", "validation", "test"):
        for row in rows(tasks / f"mmlu/{split}.jsonl.gz"):
            assert {"question", "subject", "choices", "answer"} <= set(row)
            assert 0 <= row["answer"] < len(set(row["choices"])) == 4
    beliefs = rows(tasks / "truthfulqa/multiple_choice_v1_817.jsonl.gz")
    assert len(beliefs) >= 200
    for row in beliefs:
        assert row["mc1_targets"]["labels"][0] == 1 and sum(row["mc1_targets"]["labels"]) == 1
        assert len(row["mc2_targets"]["choices"]) == len(row["mc2_targets"]["labels"])


def test_gold_letters_are_even_and_half_of_the_wordings_are_new(folder: Path) -> None:
    test = rows(folder / "tasks/arc_easy/test.jsonl.gz")
    assert all(0.18 < sum(r["answerKey"] == c for r in test) / len(test) < 0.32 for c in "ABCD")
    assert 0.4 < sum(r["wording"] == "unseen" for r in test) / len(test) < 0.6
    tuning = {r["prompt"] for r in rows(folder / "instructions.jsonl")}
    assert not [r for r in test if f"Question: {r['question']}\nAnswer:" in tuning]


@needs_base
def test_the_base_is_small_and_complete() -> None:
    base = world.base_dir()
    assert (base / "model.safetensors").stat().st_size <= 8 * 2**20
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json", "README.md")
    assert all((base / name).is_file() for name in names)


@needs_base
def test_the_base_prefers_true_statements() -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    tokenizer: Any = AutoTokenizer.from_pretrained(world.base_dir())
    model = AutoModelForCausalLM.from_pretrained(world.base_dir(), dtype=torch.float32).eval()
    pairs = random.Random(7).sample(world.truth_pairs(0), 150)
    assert tokenizer.eos_token == "<|endoftext|>" and tokenizer.pad_token != tokenizer.eos_token

    def score(text: str) -> float:
        ids = torch.tensor([[tokenizer.eos_token_id, *tokenizer(text)["input_ids"]]])
        with torch.no_grad():
            logits = model(ids).logits[0, :-1].log_softmax(-1)
        return float(logits.gather(1, ids[0, 1:, None]).sum())

    assert sum(score(true) > score(false) for true, false in pairs) / len(pairs) >= 0.9
