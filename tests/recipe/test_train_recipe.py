"""Whole training runs on a tiny random model."""

from __future__ import annotations

import contextlib
import json
import os
import re
import struct
import subprocess
import sys
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
    fitted = losses(run(tmp_path, "d", max_steps=6, pass_tokens=20))
    assert packed == pytest.approx(padded, rel=1e-4)
    assert packed == pytest.approx(fitted, rel=1e-4)
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


@pytest.mark.parametrize("kind", ["window", "gemma2"])
def test_what_cannot_be_packed_is_padded(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny_folder(tmp_path / "base", kind)
    tiny_data(tmp_path / "data")
    out = run(tmp_path, max_steps=2, eval_samples=1)
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
    assert caught.value.where.startswith("weight model.norm.weight; examples ")
    assert caught.value.where.split("examples ")[1].split(", ")[0] in {e.id for e in tiny_examples()}


def test_overflowing_layer_is_named(tmp_path: Path) -> None:
    """Finite weights whose product is not: the layer that puts it out first, not the ones behind it."""
    from safetensors.torch import load_file, save_file

    tiny_folder(tmp_path / "base")
    tiny_data(tmp_path / "data")
    weights = load_file(tmp_path / "base" / "model.safetensors")
    name = "model.layers.1.mlp.down_proj.weight"
    weights[name] = weights[name] * 1e38
    save_file(weights, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(DataError) as caught:
        run(tmp_path)
    assert caught.value.where.startswith("layer model.layers.1.mlp.down_proj; examples ")


# A benchmark of one's own: the tiny rows' pattern as a choice, so that training must raise its score.
TASK = """
from tuneloop.tasks import Item, Task

WORDS = [f"w{i}" for i in range(40)]

def rows(split):
    return [{"words": [WORDS[(i * 7 + j * 3) % 40] for j in range(2 + i % 10)], "no": i} for i in range(48)]

def item(doc):
    right, wrong = doc["words"][-1], doc["words"][-2]
    return Item(" ".join(doc["words"]), [f"{right} {right}", f"{wrong} {right}"], [0])

TASK = Task("copy", "1", rows, item)
"""


def test_task_scores_and_samples_while_training(tmp_path: Path) -> None:
    (tmp_path / "copy_task.py").write_text(TASK)
    watched: dict[str, Any] = {
        "eval_tasks": [{"task": str(tmp_path / "copy_task.py"), "limit": 32}],
        "eval_samples": 2,
        "metric_for_best_model": "copy",
        "report_to": ["tensorboard"],
    }
    out = run(tmp_path, "watched", num_train_epochs=6, learning_rate=1e-3, **watched)
    plain = run(tmp_path, "plain", num_train_epochs=6, learning_rate=1e-3)
    log = read_jsonl(out / "log.jsonl")
    scores = {row["step"]: row["copy"] for row in log if "copy" in row}
    assert len(scores) == 6
    assert len(set(scores.values())) > 1
    manifest = read_json(out / "manifest.json")
    assert manifest["best_metric"] == {"name": "copy", "value": max(scores.values())}
    assert losses(out) == losses(plain), "looking changed the run"
    samples = read_jsonl(out / "samples.jsonl")
    assert len(samples) == 12
    assert samples[0]["expected"].split()[0] in samples[0]["prompt"]
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    curves = EventAccumulator(str(out / "tensorboard")).Reload()
    assert [e.value for e in curves.Scalars("loss")] == pytest.approx(losses(out), rel=1e-6)
    assert [e.step for e in curves.Scalars("copy")] == list(scores)


def test_what_a_terminal_shows(tmp_path: Path) -> None:
    """On a real pseudo-terminal of 100 columns: bar, time left, and below it what is told, neither cut nor wrapped."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    tiny_folder(tmp_path / "base")
    tiny_data(tmp_path / "data")
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    sets = ["train.method=full", "train.learning_rate=1e-3", "train.max_steps=60", "train.eval_steps=20"]
    command = [sys.executable, "-m", "tuneloop", "train", "--model", "base", "--data", "data", "--out", "out"]
    process = subprocess.Popen(
        [*command, *[word for value in sets for word in ("--set", value)]], cwd=tmp_path,
        stdin=theirs, stdout=theirs, stderr=theirs, env={**os.environ, "TERM": "xterm-256color"},
    )  # fmt: skip
    os.close(theirs)
    drawn = b""
    with contextlib.suppress(OSError):  # how Linux says that the other side is closed
        while chunk := os.read(ours, 65536):
            drawn += chunk
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn.decode())
    told = [line for line in re.split(r"[\r\n]+", text) if "tok/s" in line]
    shape = r"  loss \d+\.\d{4} [▁▂▃▄▅▆▇█]+(  valid \d+\.\d{4})?  [\d,]+ tok/s  \d+\.\d\d GiB  \d+% of rate"
    assert told
    assert all(re.fullmatch(shape, line.rstrip()) and len(line) <= 80 for line in told), told[-1]
    assert re.search(r"train +━+ +\d+/60 +\d:\d\d:\d\d", text)


@pytest.mark.parametrize("settings", [{"gradient_checkpointing": "full"}, {"gradient_checkpointing": "selective"}])
def test_recomputed_activations_do_not_change_the_run(tmp_path: Path, settings: dict[str, Any]) -> None:
    plain = run(tmp_path, "plain", max_steps=6)
    light = run(tmp_path, "light", max_steps=6, **settings)
    assert losses(light) == pytest.approx(losses(plain), rel=1e-6)


def test_offloaded_activations_do_not_change_the_gradient() -> None:
    """On a CPU there is nothing to move to; the same hooks run, and hold copies."""
    import torch
    from tests.recipe.tiny import tiny_model

    from tuneloop.train import activations

    model = tiny_model()
    ids = torch.arange(120).reshape(2, 60) % 60
    plain = torch.autograd.grad(model(input_ids=ids, labels=ids).loss, model.model.layers[0].mlp.up_proj.weight)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(activations, "SMALL", 0)
        with activations.keeping(model, TrainConfig(activation_offload=True))():
            loss = model(input_ids=ids, labels=ids).loss
    kept = torch.autograd.grad(loss, model.model.layers[0].mlp.up_proj.weight)[0]
    assert kept.equal(plain)
