"""Design invariant 4: a run killed at any step and resumed ends in the same bytes as a straight one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.recipe.tiny import tiny_data, tiny_folder

# The signal arrives just after step STEP was logged and before its checkpoint is written.
CHILD = """
import os, signal, sys
import torch
torch.set_num_threads(1)
import tuneloop.train.loop as loop
from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import TuneloopError
from tuneloop.train import train
base, data, out, step, number, method = sys.argv[1:]
log = loop.append_jsonl
def hook(path, row):
    log(path, row)
    if row["step"] == int(step):
        os.kill(os.getpid(), int(number))
loop.append_jsonl = hook
compiled = method == "compiled"
config = TrainConfig(method="full" if compiled else method, torch_compile=compiled or None, learning_rate=1e-2,
    per_device_train_batch_size=4, gradient_accumulation_steps=2, num_train_epochs=3,
    save_steps=2, eval_steps=2, lora_dropout=0.1)
try:
    train(config, ModelConfig(name=base), data=__import__("pathlib").Path(data), out=__import__("pathlib").Path(out))
except TuneloopError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("kill")
    tiny_folder(top / "base")
    tiny_data(top / "data")
    for method in ("full", "lora"):
        assert child(top, f"straight-{method}", 0, 0, method).returncode == 0
    return top


def child(top: Path, out: str, step: int, number: int, method: str = "full") -> subprocess.CompletedProcess[str]:
    arguments = [str(top / "base"), str(top / "data"), str(top / out), str(step), str(number), method]
    return subprocess.run([sys.executable, "-c", CHILD, *arguments], capture_output=True, text=True, timeout=300)


def same(top: Path, out: str, method: str) -> None:
    name = "adapter_model.safetensors" if method == "lora" else "model.safetensors"
    straight, resumed = top / f"straight-{method}", top / out
    assert (resumed / name).read_bytes() == (straight / name).read_bytes()
    assert (resumed / "row_loss.parquet").read_bytes() == (straight / "row_loss.parquet").read_bytes()
    logs = [[json.loads(line) for line in (f / "log.jsonl").read_text().splitlines()] for f in (straight, resumed)]
    for row in logs[0] + logs[1]:
        for clock in ("tokens_per_s", "memory_bytes", "matrix_rate_fraction"):
            del row[clock]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(("method", "step"), [("full", 5), ("lora", 4)])
def test_killed_and_resumed_is_the_straight_run(folders: Path, method: str, step: int) -> None:
    out = f"kill-{method}-{step}"
    assert child(folders, out, step, 9, method).returncode == -9
    assert not (folders / out / "manifest.json").exists()
    assert child(folders, out, 0, 0, method).returncode == 0
    same(folders, out, method)


def test_killed_and_resumed_with_compiled_layers(folders: Path) -> None:
    """The kernels are made for the first step's examples, in the resumed process too."""
    straight = child(folders, "straight-compiled", 0, 0, "compiled")
    assert straight.returncode == 0, straight.stderr
    assert child(folders, "kill-compiled", 5, 9, "compiled").returncode == -9
    assert child(folders, "kill-compiled", 0, 0, "compiled").returncode == 0
    same(folders, "kill-compiled", "compiled")
    plain, quick = ((folders / f"straight-{m}" / "model.safetensors").read_bytes() for m in ("full", "compiled"))
    assert plain != quick  # other last bits: it was compiled


@pytest.mark.parametrize(("number", "code"), [(15, 143), (2, 130)])
def test_signal_saves_and_exits_with_its_code(folders: Path, number: int, code: int) -> None:
    out = f"signal-{number}"
    stopped = child(folders, out, 3, number)
    assert stopped.returncode == code, stopped.stderr
    assert "resumes" in stopped.stderr
    assert (folders / out / "checkpoint-3").is_dir()
    if number == 15:
        assert child(folders, out, 0, 0).returncode == 0
        same(folders, out, "full")


def test_broken_checkpoint_is_passed_over(folders: Path) -> None:
    out = folders / "broken"
    assert child(folders, "broken", 5, 9).returncode == -9
    state = out / "checkpoint-4" / "state.safetensors"
    data = bytearray(state.read_bytes())
    data[-7] ^= 1
    state.write_bytes(bytes(data))
    resumed = child(folders, "broken", 0, 0)
    assert resumed.returncode == 0
    assert "checkpoint-4 is broken" in resumed.stderr
    assert "resumed after step 2" in resumed.stderr
    same(folders, "broken", "full")
