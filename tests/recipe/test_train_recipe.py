"""Whole training runs on a tiny random model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.recipe.tiny import tiny_data, tiny_examples, tiny_folder

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import DataError, UsageError
from tuneloop.records import Example
from tuneloop.store import read_json, read_jsonl, read_table
from tuneloop.train import train

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parent / "golden_loss.txt"
FULL: dict[str, Any] = {"method": "full", "learning_rate": 3e-3, "per_device_train_batch_size": 4}


def run(tmp_path: Path, name: str = "out", **settings: Any) -> Path:
    base, data = tmp_path / "base", tmp_path / "data"
    if not base.exists():
        tiny_folder(base)
        tiny_data(data)
    return train(TrainConfig(**{**FULL, **settings}), ModelConfig(name=str(base)), data, tmp_path / name)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(out / "log.jsonl")]


def test_loss_falls_as_written_down(tmp_path: Path) -> None:
    out = run(tmp_path, num_train_epochs=4)
    found = losses(out)
    assert found[-1] < 0.7 * found[0]
    golden = [float(line) for line in GOLDEN.read_text().split()]
    assert found == pytest.approx(golden, rel=1e-3)
    log = read_jsonl(out / "log.jsonl")
    keys = {"step", "loss", "learning_rate", "grad_norm", "tokens", "trained_tokens", "tokens_per_s"}
    assert keys <= log[0].keys()
    assert sum("valid_loss" in row for row in log) == 4


def test_layout_does_not_change_the_run(tmp_path: Path) -> None:
    packed = losses(run(tmp_path, "a", max_steps=6))
    padded = losses(run(tmp_path, "b", max_steps=6, packing=False))
    split = losses(run(tmp_path, "c", max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2))
    assert packed == pytest.approx(padded, rel=1e-4)
    assert packed == pytest.approx(split, rel=1e-4)


def test_what_the_folder_holds(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    out = run(tmp_path, num_train_epochs=2)
    AutoModelForCausalLM.from_pretrained(out)
    rows = read_table(out / "row_loss.parquet").to_pylist()
    assert {row["id"] for row in rows} == {e.id for e in tiny_examples()}
    assert {row["times_seen"] for row in rows} == {2}
    manifest = read_json(out / "manifest.json")
    assert manifest["best_valid_loss"] == min(
        r["valid_loss"] for r in read_jsonl(out / "log.jsonl") if "valid_loss" in r
    )
    assert (out / "README.md").read_text().startswith("---\nbase_model:")
    before = (out / "log.jsonl").read_text()
    run(tmp_path, num_train_epochs=2)
    assert (out / "log.jsonl").read_text() == before, "a finished run was not skipped"


def test_adapter_loads_in_peft_and_merges(tmp_path: Path) -> None:
    import torch
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    out = run(tmp_path, method="lora", learning_rate=1e-2, num_train_epochs=2, merge=True)
    assert losses(out)[-1] < losses(out)[0]
    ids = torch.arange(3, 30)[None]
    with torch.no_grad():
        adapter = AutoPeftModelForCausalLM.from_pretrained(out)(ids).logits
        merged = AutoModelForCausalLM.from_pretrained(out / "merged")(ids).logits
        base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")(ids).logits
    assert torch.allclose(adapter, merged, atol=1e-4)
    assert not torch.allclose(adapter, base, atol=1e-2)
    again = train(
        TrainConfig(method="lora", max_steps=2), ModelConfig(name=str(out)), tmp_path / "data", tmp_path / "more"
    )
    assert losses(again)[0] < losses(out)[0]
    with pytest.raises(UsageError, match="adapter"):
        train(TrainConfig(method="full"), ModelConfig(name=str(out)), tmp_path / "data", tmp_path / "no")


def test_early_stop_and_best_weights(tmp_path: Path) -> None:
    out = run(tmp_path, num_train_epochs=60, learning_rate=2e-2, early_stopping_patience=2, eval_steps=3)
    log = read_jsonl(out / "log.jsonl")
    assert len(log) < 360, "it did not stop"
    valid = {row["step"]: row["valid_loss"] for row in log if "valid_loss" in row}
    best = min(valid, key=lambda step: valid[step])
    assert read_json(out / "manifest.json")["best_step"] == best
    from safetensors.torch import load_file

    state = load_file(out / f"checkpoint-{best}" / "state.safetensors")
    saved = load_file(out / "model.safetensors")
    name = "model.layers.0.mlp.up_proj.weight"
    assert state[f"master.{name}"].equal(saved[name])


def test_window_model_falls_back_to_padding(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_folder(tmp_path / "base", "window")
    tiny_data(tmp_path / "data")
    out = run(tmp_path, max_steps=2)
    assert "packing is off" in capsys.readouterr().err
    assert len(losses(out)) == 2


def test_half_precision_keeps_float32_masters(tmp_path: Path) -> None:
    out = run(tmp_path, dtype="bfloat16", num_train_epochs=4)
    found = losses(out)
    assert found[-1] < 0.8 * found[0]


def test_dropped_rows_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_folder(tmp_path / "base")
    rows = tiny_examples(8)
    long = Example(id="long", kind="completion", prompt=" ".join(["w1"] * 200), completion=" w2")
    tiny_data(tmp_path / "data", [*rows, long])
    out = run(tmp_path, max_steps=1)
    dropped = [json.loads(line) for line in (out / "dropped.jsonl").read_text().splitlines()]
    assert [d["id"] for d in dropped] == ["long"]
    assert "more than max_length 128" in dropped[0]["reason"]
    assert "1 of 9 examples dropped" in capsys.readouterr().err


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "base")
    tiny_data(tmp_path / "data", [])
    with pytest.raises(DataError) as caught:
        run(tmp_path)
    assert caught.value.number == 350


def test_infinite_loss_names_step_and_examples(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tiny_folder(tmp_path / "base")
    tiny_data(tmp_path / "data")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    weights["model.norm.weight"] = torch.full_like(weights["model.norm.weight"], float("inf"))
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError) as caught:
        run(tmp_path, packing=False)
    assert caught.value.number == 351
    assert "step 1" in caught.value.what
    assert caught.value.where.split("examples ")[1].split(", ")[0] in {e.id for e in tiny_examples()}
