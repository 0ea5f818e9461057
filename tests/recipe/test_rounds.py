"""Turns of the loop on a tiny model: halves, control arm, one reading of the reporting half, going on after a stop."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from tests.recipe.tiny import WORDS, byte_model

from tuneloop.config import LoopConfig
from tuneloop.errors import UsageError
from tuneloop.records import Example, read_examples
from tuneloop.rounds import run_rounds
from tuneloop.rounds.pool import drawn, targeted
from tuneloop.rounds.repair import repaired
from tuneloop.store import read_json, read_jsonl, read_table

LABELS = ("yes", "no", "perhaps")


def rows(count: int, seed: int) -> list[dict[str, str]]:
    rng = random.Random(seed)
    return [{"text": f"{' '.join(rng.sample(WORDS, 4))} {i}", "label": LABELS[i % 3]} for i in range(count)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return byte_model(tmp_path_factory.mktemp("model"), context=128)


@pytest.fixture
def config(model: str, tmp_path: Path) -> LoopConfig:
    # Training hardly shows the longest label, which this model never picks: a gap that the findings must name.
    train_rows = [r for k, r in enumerate(rows(180, 1)) if r["label"] != "perhaps" or k < 6]
    for name, found_rows in (("train", train_rows), ("test", rows(200, 2)), ("pool", rows(60, 3))):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(r) + "\n" for r in found_rows))
    data = {"source": [str(tmp_path / "train.jsonl")], "test": [str(tmp_path / "test.jsonl")], "valid_fraction": 0}
    train = {"method": "full", "learning_rate": 1e-3, "max_steps": 2, "per_device_train_batch_size": 8}
    found: dict[str, Any] = {"model": {"name": model, "template": "plain"}, "data": data | {"near_duplicates": False}}
    found |= {"train": train, "eval": {"generate_limit": 0, "metrics": ["accuracy"]}}
    return LoopConfig.model_validate(found | {"rounds": {"pool": [str(tmp_path / "pool.jsonl")], "budget": 9}})


def bare(config: LoopConfig) -> LoopConfig:
    return config.model_copy(update={"rounds": config.rounds.model_copy(update={"pool": []})})


def keys(folder: Path) -> set[str]:
    return {row["row"] for row in read_table(folder / "rows.parquet").to_pylist()}


def test_rounds_control_and_one_reading(config: LoopConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tuneloop.train

    out, real = tmp_path / "loop", tuneloop.train.train

    def dying(*parts: Any, **more: Any) -> Path:
        if "round-1" in str(parts[3]):
            raise KeyboardInterrupt
        return real(*parts, **more)

    with monkeypatch.context() as patch:
        patch.setattr(tuneloop.train, "train", dying)
        with pytest.raises(KeyboardInterrupt):
            run_rounds(config, out, 2)
    assert not (out / "verdict").exists() and not (out / "reads.jsonl").exists()
    before = (out / "round-0" / "model" / "manifest.json").stat().st_mtime_ns
    run_rounds(config, out, 2)
    assert (out / "round-0" / "model" / "manifest.json").stat().st_mtime_ns == before
    state = read_json(out / "loop.json")
    assert list(state["verdict"]["contenders"]) == ["base", "round-0", "round-1", "control"]
    assert state["rounds"][1]["added"] == 9
    assert state["verdict"]["names"] == ["perhaps"]
    first = read_examples(out / "round-0" / "data", "train")
    added = read_examples(out / "round-1" / "data", "train")[len(first) :]
    assert {e.label for e in added} == {"perhaps"}
    control = read_examples(out / "control" / "data", "train")[len(first) :]
    assert len(control) == 9 and {e.label for e in control} > {"perhaps"}
    assert {e.id for e in read_examples(out / "round-0" / "data", "test")} == {
        e.id for e in read_examples(out / "round-1" / "data", "test")
    }
    read, kept = keys(out / "round-0" / "compare" / "tune"), keys(out / "verdict" / "round-1")
    assert read and kept and not read & kept and len(read | kept) == 200
    assert keys(out / "round-1" / "compare" / "tune") == read and keys(out / "verdict" / "control") == kept
    page = (out / "report" / "report.html").read_text(encoding="utf-8")
    assert "was read 1 time:" in page and "round-1 against control, weak slice" in page and "9 rows added" in page
    run_rounds(config, out, 2)
    assert read_json(out / "loop.json")["verdict"]["reads"] == 1
    other = config.model_copy(update={"analyze": config.analyze.model_copy(update={"alpha": 0.01})})
    run_rounds(other, out, 2, overwrite=True)
    assert read_json(out / "loop.json")["verdict"]["reads"] == 2
    assert len(read_jsonl(out / "reads.jsonl")) == 2


def test_a_line_that_halves_the_rate_is_carried_out(config: LoopConfig, tmp_path: Path) -> None:
    out = tmp_path / "loop"
    run_rounds(config, out, 1)
    path = out / "round-0" / "analysis" / "tune" / "next_data.jsonl"
    line = {"stage": "train", "action": "halve", "setting": "learning_rate", "cause": "forgetting", "why": "worse"}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    run_rounds(config, out, 2)
    done = read_json(out / "loop.json")["rounds"][1]
    assert done["halved"] == 1 and done["learning_rate"] == pytest.approx(5e-4)
    rates = {name: max(row["learning_rate"] for row in read_jsonl(out / name / "model" / "log.jsonl"))
             for name in ("round-0", "round-1", "control")}  # fmt: skip
    assert rates == pytest.approx({"round-0": 1e-3, "round-1": 5e-4, "control": 1e-3})


def test_a_second_round_needs_rows_from_somewhere(config: LoopConfig, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TL-191"):
        run_rounds(bare(config), tmp_path / "loop", 2)


def example(key: str, prompt: str, answer: str) -> Example:
    return Example(id=key, kind="completion", prompt=prompt, completion=f" {answer}")


def test_lines_of_the_data_stage_are_carried_out(tmp_path: Path) -> None:
    from tuneloop.records import write_examples

    train = [example("a", "Where is it?", "here"), example("b", "Well, where is it?", "here")]
    train += [example("c", "Who is it?", "Ann"), example("d", "Why is it?", "so"), example("e", "How is it?", "well")]
    write_examples(tmp_path / "data", "train", train)
    lines = [
        {"stage": "data", "action": "keep_one", "rows": ["a", "b"]},
        {"stage": "data", "action": "drop", "rows": ["c"]},
        {"stage": "data", "action": "relabel", "rows": ["d"], "answers": {"d": "because"}},
        {"stage": "generate", "action": "add_slice", "rows": []},
    ]
    counts = repaired(tmp_path / "data", lines, tmp_path / "kept.jsonl")
    assert counts == {"rows": 3, "dropped": 2, "relabelled": 1, "laid_out": 0, "reordered": 0}
    kept = read_jsonl(tmp_path / "kept.jsonl")
    assert [row["prompt"] for row in kept] == ["Where is it?", "Why is it?", "How is it?"]
    assert kept[1]["completion"] == " because"


def test_the_pool_gives_what_the_findings_name_and_the_control_anything() -> None:
    pool = [example(f"{k}{i}", f"What does {WORDS[i]} {k} now?", "x") for k in ("eat", "wear") for i in range(20)]
    named = targeted(pool, [{"names": ["eat"], "budget": 50, "rows": []}], 12)
    assert len(named) == 12 and all("eat" in str(e.prompt) for e in named)
    like = targeted(pool, [{"names": [], "budget": 5, "rows": [{"question": "What does w3 wear now?"}]}], 12)
    assert len(like) == 5 and like[0].prompt == "What does w3 wear now?"
    chosen = drawn(pool, 12, 0)
    assert len({e.id for e in chosen}) == 12 and {str(e.prompt).split()[3] for e in chosen} == {"eat", "wear"}


def test_rows_are_laid_out_anew_and_letters_are_spread(tmp_path: Path) -> None:
    from tuneloop.records import write_examples

    asks = [example(f"q{i}", f"Asked: Where is {WORDS[i]}?\nSaid:", "here") for i in range(5)]
    lettered = [
        example(f"l{i}", f"Who is {WORDS[i]}?\nA. Ann\nB. Bea\nC. Cyd\nD. Dot\nLetter:", "A") for i in range(40)
    ]
    write_examples(tmp_path / "data", "train", [*asks, *lettered])
    lines = [
        {"stage": "data", "action": "format", "rows": ["q0", "q1"], "old": "Asked: {}\nSaid:", "new": "Q: {}\nA:"},
        {"stage": "data", "action": "permute_options"},
    ]
    counts = repaired(tmp_path / "data", lines, tmp_path / "kept.jsonl")
    kept = read_jsonl(tmp_path / "kept.jsonl")
    assert counts["laid_out"] == 2 and counts["rows"] == 45
    assert kept[0]["prompt"] == f"Q: Where is {WORDS[0]}?\nA:" and kept[2]["prompt"] == asks[2].prompt
    answers = [row["completion"].strip() for row in kept[5:]]
    assert {answers.count(letter) > 3 for letter in "ABCD"} == {True}
    assert counts["reordered"] == sum(letter != "A" for letter in answers)
    for row, letter in zip(kept[5:], answers, strict=True):
        assert f"\n{letter}. Ann\n" in row["prompt"]  # the letter still names the right option
        assert sorted(line[3:] for line in row["prompt"].split("\n")[1:5]) == ["Ann", "Bea", "Cyd", "Dot"]
