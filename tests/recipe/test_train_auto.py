"""What is measured instead of given: learning rate, examples a step, micro-batch; sweeps; memory before the start."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from tests.recipe.tiny import tiny_data, tiny_examples, tiny_folder, tiny_model

from tuneloop.config import ModelConfig, SweepConfig, TrainConfig
from tuneloop.errors import DataError, Interrupted, PrerequisiteError, UsageError
from tuneloop.models import load_shape
from tuneloop.store import read_json, read_jsonl
from tuneloop.train import train
from tuneloop.train.batch import Item
from tuneloop.train.finder import Found, accumulation
from tuneloop.train.flops import shape_cost
from tuneloop.train.memory import KINDS, count, peak, recommend
from tuneloop.train.sweep import _try_ends, _yaml, sweep
from tuneloop.train.trial import tried

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("auto")
    tiny_folder(top / "base")
    tiny_data(top / "data", tiny_examples(160))
    return top


def test_auto_values_help_are_said_and_survive_a_resume(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked: dict[str, Any] = {"learning_rate": "auto", "gradient_accumulation_steps": "auto", "method": "full"}
    config = TrainConfig(**asked, per_device_train_batch_size=2, num_train_epochs=4)
    out = train(config, ModelConfig(name=str(folders / "base")), folders / "data", folders / "auto")
    told, found = capsys.readouterr().err, read_json(folders / "auto" / "auto.json")
    for key in ("learning_rate", "gradient_accumulation_steps"):
        assert f"{key} {found[key]['value']:g}: {found[key]['reason']}" in told
    manifest, log = read_json(out / "manifest.json"), read_jsonl(out / "log.jsonl")
    assert manifest["learning_rate"] == found["learning_rate"]["value"]
    assert log[0]["examples"] == 2 * found["gradient_accumulation_steps"]["value"]
    # What the model was before: the first loss is that of the untouched base.
    plain = TrainConfig(method="full", per_device_train_batch_size=log[0]["examples"], max_steps=1)
    once = train(plain, ModelConfig(name=str(folders / "base")), folders / "data", folders / "once")
    assert log[0]["loss"] == pytest.approx(read_jsonl(once / "log.jsonl")[0]["loss"], rel=1e-5)
    assert log[-1]["valid_loss"] < 0.7 * log[0]["loss"]


def test_examples_a_step_follow_noise_within_reason() -> None:
    assert accumulation(Found(100.0, "", []), micro=4, examples=100_000) == 25
    assert accumulation(Found(0.5, "", []), micro=4, examples=100_000) == 2, "never below 8 examples"
    assert accumulation(Found(1e9, "", []), micro=4, examples=100_000) == 128, "never above 512"
    assert accumulation(Found(1e9, "", []), micro=4, examples=400) == 5, "20 steps an epoch"


def test_recommended_micro_batch_divides_the_step_and_fits() -> None:
    assert recommend(24, lambda size: size * 10, 85) == 8
    assert recommend(24, lambda size: size * 10, 5) == 1
    assert recommend(7, lambda size: size * 10, 69) == 1


def items(count: int, length: int) -> list[Item]:
    return [
        Item(f"{i}", [5] * length, [False] * (length // 2) + [True] * (length - length // 2), 1.0) for i in range(count)
    ]


def counted(size: int = 4, **settings: Any) -> dict[str, int]:
    import torch

    config = TrainConfig(**{"method": "full", "per_device_train_batch_size": size, **settings})
    return count(tiny_model().config, config, torch.float32, items(size, 64), packing=True)


def test_counted_memory_has_the_parts_one_can_check_by_hand() -> None:
    weights = sum(p.numel() for p in tiny_model().parameters()) * 4
    found = counted()
    assert found["weights"] == weights
    assert found["optimizer"] == pytest.approx(2 * weights, rel=0.01)
    assert found["adapters"] == 0
    large = counted(16)
    assert large["activations"] == pytest.approx(4 * found["activations"], rel=0.15)
    assert counted(16, gradient_checkpointing="full")["activations"] < 0.8 * large["activations"]
    lora = counted(method="lora", lora_r=2)
    assert 0 < lora["adapters"] < 0.5 * weights
    assert lora["optimizer"] == pytest.approx(2 * lora["adapters"], rel=0.1)
    assert set(KINDS) < set(found)


@pytest.mark.parametrize("name", ["dpo", "orpo", "kto", "reward", "distill"])
def test_memory_of_every_objective_is_counted(name: str, folders: Path) -> None:
    import torch
    from tests.recipe.test_train_trl import pairs, singles, triples

    more = {"teacher": str(folders / "base")} if name == "distill" else {}
    config = TrainConfig(method="full", objective=name, per_device_train_batch_size=4, **more)  # type: ignore[arg-type]
    rows = singles(triples(4)) if name in ("kto", "distill") else pairs(triples(4))
    found = count(tiny_model().config, config, torch.float32, rows, packing=True)
    weights = sum(p.numel() for p in tiny_model().parameters()) * 4
    assert found["weights"] >= (2 * weights if name == "distill" else 0.8 * weights)
    assert found["activations"] > 0
    assert found["coming"] >= found["scores"] + found["activations"]
    assert peak(found, 0, "cpu") > sum(found[kind] for kind in KINDS)


def test_four_bit_weights_are_counted_as_such() -> None:
    plain, small = counted(method="lora"), counted(method="lora", load_in_4bit=True)
    assert 0.1 * plain["weights"] < small["weights"] < 0.6 * plain["weights"]


SPACE = {"space": {"learning_rate": {"low": 1e-6, "high": 1e-1, "log": True}, "warmup_ratio": [0.0, 0.1]}}


def test_sweep_is_cut_short_resumed_and_finds_a_better_rate(folders: Path) -> None:
    base = TrainConfig(method="full", per_device_train_batch_size=8, num_train_epochs=3, eval_steps=5, save_steps=5)
    sweep_config = SweepConfig.model_validate({**SPACE, "trials": 6, "jobs": 2, "warmup_trials": 1})
    arguments = (base, ModelConfig(name=str(folders / "base")), folders / "data", folders / "sweep")

    def kill_a_trial_and_stop() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end and not list((folders / "sweep").glob("trial-*/log.jsonl")):
            time.sleep(0.05)
        workers = [p for p in psutil.Process().children() if "tuneloop.train.trial" in " ".join(p.cmdline())]
        os.kill(workers[0].pid, signal.SIGKILL)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=kill_a_trial_and_stop, daemon=True).start()
    with pytest.raises(Interrupted):
        sweep(sweep_config, *arguments)
    out = sweep(sweep_config, *arguments)
    found = read_json(out / "sweep.json")
    assert len(found["trials"]) == 6
    assert {row["state"] for row in found["trials"]} <= {"complete", "pruned"}
    values = [row["values"]["learning_rate"] for row in found["trials"]]
    assert len(set(values)) == 6, "a resumed sweep tried its first values again"
    done = [row for row in found["trials"] if row["state"] == "complete"]
    assert found["best"]["valid_loss"] == min(row["valid_loss"] for row in done)
    assert all(row["steps"] < 60 for row in found["trials"] if row["state"] == "pruned")
    before = (out / "manifest.json").read_bytes()
    sweep(sweep_config, *arguments)
    assert (out / "manifest.json").read_bytes() == before, "a finished sweep was not skipped"


def test_sweep_errors_come_before_anything_starts(folders: Path) -> None:
    wrong = SweepConfig.model_validate({"space": {"learning_rat": [1, 2]}})
    with pytest.raises(UsageError, match="learning_rate"):
        sweep(wrong, TrainConfig(), ModelConfig(name=str(folders / "base")), folders / "data", folders / "no")
    assert not (folders / "no").exists()


def test_plan_probes_and_recommends_a_part_of_the_step(folders: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tuneloop.cli.plan import table
    from tuneloop.train.plan import plan

    config = TrainConfig(
        method="full", per_device_train_batch_size=8, gradient_accumulation_steps=2, num_train_epochs=2
    )
    found = plan(config, ModelConfig(name=str(folders / "base")), folders / "data")
    best = found["recommended"]
    assert best["per_device_train_batch_size"] * best["gradient_accumulation_steps"] == 16
    assert best["peak_bytes"] < found["free_bytes"]
    assert found["probe"]["peak_bytes"] > found["probe"]["base_bytes"] > 2**26
    assert found["steps"] == 20
    assert found["seconds"] > 0
    assert all(len(line) <= 100 for line in table(found))
    assert "recommended: per_device_train_batch_size 16" in "\n".join(table(found))


def test_missing_tracker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from tuneloop.errors import PrerequisiteError
    from tuneloop.train.trackers import trackers

    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(PrerequisiteError, match="TL-222"), trackers(["trackio"], tmp_path, {}):
        pass


def test_what_a_sweep_varies_is_not_measured_too() -> None:
    base = TrainConfig.model_validate({"learning_rate": "auto", "gradient_accumulation_steps": "auto"})
    found = tried(base, {"learning_rate": 3e-3})
    assert (found.learning_rate, found.auto) == (3e-3, ["gradient_accumulation_steps"])
    best = yaml.safe_load(_yaml(base, {"values": {"learning_rate": 3e-3}}))["train"]
    assert TrainConfig.model_validate(best) == found


@pytest.mark.parametrize(
    ("key", "over"),
    [
        ("lora_r", {"low": 4, "high": 64}),
        ("method", {"choices": ["full", "none"]}),
        ("adam_beta2", {"low": 0, "high": 1}),
    ],
)
def test_values_that_a_key_cannot_have_are_refused_before_a_trial(key: str, over: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="TL-251"):
        _try_ends(SweepConfig.model_validate({"space": {key: over}}), TrainConfig())
    _try_ends(SweepConfig.model_validate({"space": {"lora_r": {"low": 4, "high": 64, "whole": True}}}), TrainConfig())


def test_a_shape_without_heads_or_a_model_that_is_not_there() -> None:
    from transformers import MambaConfig

    cost = shape_cost(MambaConfig(vocab_size=64, hidden_size=16, num_hidden_layers=2, state_size=4), "full")
    assert cost.square == 0 and cost.token > 0
    with pytest.raises(PrerequisiteError, match="TL-20[27]"):
        load_shape("no/such-model")


def test_a_loss_that_is_no_number_at_once_has_no_rate(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tuneloop.train.finder._step_at", lambda *_: None)
    config = TrainConfig.model_validate({"method": "full", "learning_rate": "auto", "max_steps": 1})
    with pytest.raises(DataError, match="TL-353"):
        train(config, ModelConfig(name=str(folders / "base")), folders / "data", folders / "no-rate")
