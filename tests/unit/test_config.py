from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from tuneloop.config import TrainConfig, load
from tuneloop.config.load import _read_yaml
from tuneloop.errors import UsageError


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "c.yaml"
    path.write_text(text)
    return path


def test_file_then_set_then_flag(tmp_path: Path) -> None:
    path = _write(tmp_path, "train: {learning_rate: 1e-4, seed: 3}\nmodel: a/b\n")
    loaded = load(path, ["train.learning_rate=2e-4"], {"model.name": "c/d", "model.template": None})
    assert loaded.config.train.learning_rate == 2e-4
    assert loaded.config.train.seed == 3
    assert loaded.config.model.name == "c/d"
    assert loaded.origins["train.learning_rate"] == "--set"
    assert loaded.origins["train.seed"] == str(path)


def test_names_of_the_peers_are_mapped_and_said(tmp_path: Path) -> None:
    path = _write(
        tmp_path, "model: {model_name_or_path: x}\ntrain: {lora_rank: 4, cutoff_len: 99}\ndata: {dataset: f.jsonl}\n"
    )
    loaded = load(path)
    assert (loaded.config.model.name, loaded.config.train.lora_r, loaded.config.train.max_length) == ("x", 4, 99)
    assert loaded.config.data.source == ["f.jsonl"]
    assert "train.cutoff_len read as train.max_length" in loaded.notes


def test_one_key_under_two_names_is_an_error_in_one_place_alone(tmp_path: Path) -> None:
    path = _write(tmp_path, "train: {lr: 1e-4, learning_rate: 1e-3}\n")
    with pytest.raises(UsageError, match="given as train.lr and train.learning_rate; keep one"):
        load(path)
    with pytest.raises(UsageError, match="given as train.epochs and train.num_epochs"):
        load(None, ["train.epochs=1", "train.num_epochs=2"])
    with pytest.raises(UsageError, match="the key 'seed' stands twice"):
        load(_write(tmp_path, "train:\n  seed: 1\n  lr: 1e-4\n  seed: 2\n"))
    # A merge key brings others in, and a key that is written beside it counts before them: nothing stands twice.
    for text in (
        "train:\n  x:\n    inner: &child {<<: &base {a: 1}, a: 2}\n  y: {<<: *child}\n",
        "train:\n  x:\n    inner: &child\n      <<: &base\n        a: 1\n      a: 2\n  y:\n    <<: *child\n",
    ):
        assert _read_yaml(_write(tmp_path, text)) == {"train": {"x": {"inner": {"a": 2}}, "y": {"a": 2}}}
    with pytest.raises(UsageError, match="the key 'a' stands twice"):
        load(_write(tmp_path, "train: {x: &child {a: 1}, y: {<<: *child, a: 2, a: 3}}\n"))
    # The command line overrides the file, whatever the names.
    assert (
        load(_write(tmp_path, "train: {lr: 1e-4}\n"), ["train.learning_rate=1e-3"]).config.train.learning_rate == 1e-3
    )


def test_all_errors_at_once_with_the_nearest_name(tmp_path: Path) -> None:
    path = _write(tmp_path, "train: {learing_rate: 1, lora_r: 0}\ndat: {}\nmodel: {name: x, dtype: int3}\n")
    with pytest.raises(UsageError) as caught:
        load(path, ["train.seed"])
    text = str(caught.value)
    assert caught.value.exit_code == 2
    for part in (
        "5 config errors",
        "did you mean 'learning_rate'",
        "train.lora_r",
        "did you mean 'data'",
        "model.dtype",
        "--set train.seed",
    ):
        assert part in text, text


@pytest.mark.parametrize(("text", "code"), [("a: [", "TL-102"), ("- 1", "TL-102"), ("\t", "TL-102")])
def test_broken_yaml(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(UsageError, match=code.replace("TL-", "TL-")) as caught:
        load(_write(tmp_path, text))
    assert caught.value.code == code


def test_missing_file() -> None:
    with pytest.raises(UsageError) as caught:
        load("nowhere.yaml")
    assert caught.value.code == "TL-101"


def test_task_shorthand() -> None:
    tasks = load(None, ["eval.tasks=[mmlu:5, {task: arc_easy, limit: 3}]"]).config.eval.tasks
    assert [(t.task, t.shots, t.limit) for t in tasks] == [("mmlu", 5, None), ("arc_easy", None, 3)]


def test_auto_and_the_trainer_spellings_are_read() -> None:
    sets = ["train.learning_rate=auto", "train.gradient_checkpointing=true", "train.report_to=tensorboard"]
    found = load(None, [*sets, "train.eval_tasks=[arc_easy, mmlu:2]"]).config.train
    assert (found.learning_rate, found.auto, found.gradient_checkpointing) == (None, ["learning_rate"], "full")
    assert (found.report_to, [t.shots for t in found.eval_tasks]) == (["tensorboard"], [None, 2])
    assert type(found).model_validate(found.model_dump()) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("num_train_epochs: .inf", "finite number"),
        ("learning_rate: .nan", "train.learning_rate"),
        ("seed: -1", "greater than or equal to 0"),
        ("seed: 4294967296", "less than 4294967296"),
        ("lr_groups: {a: -1}", "train.lr_groups.a"),
    ],
)
def test_numbers_that_no_run_can_use(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        load(_write(tmp_path, f"train: {{{text}}}\n"))


@pytest.mark.parametrize(
    "settings",
    [
        {"objective": "reward", "eval_samples": 2},
        {"objective": "reward", "eval_tasks": ["arc_easy"]},
        {"batch_tokens": 64, "gradient_accumulation_steps": 2},
        {"batch_tokens": 64, "gradient_accumulation_steps": "auto"},
    ],
)
def test_settings_that_cannot_stand_together(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TrainConfig.model_validate(settings)


def test_nothing_is_measured_by_a_null() -> None:
    assert TrainConfig.model_validate({"auto": [], "learning_rate": "auto"}).auto == ["learning_rate"]
    assert TrainConfig.model_validate({"auto": None, "learning_rate": "auto"}).auto == ["learning_rate"]
