"""Two real processes on one machine (gloo): the same gradients as one, shards that load elsewhere, a lost process."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.recipe.tiny import tiny_data, tiny_examples, tiny_folder

from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import Interrupted, PrerequisiteError, UsageError
from tuneloop.store import read_json, read_jsonl
from tuneloop.train import train
from tuneloop.train.distributed import World, check_devices

pytestmark = pytest.mark.usefixtures("one_thread")
# 23 rows in steps of 8: the last step of an epoch has 7, so one process has a pass with nothing to add.
SETTINGS: dict[str, Any] = {
    "method": "full",
    "learning_rate": 3e-3,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "num_train_epochs": 40,
    "save_steps": 5,
    "eval_steps": 30,
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("ranks")
    tiny_folder(top / "base")
    tiny_data(top / "data", tiny_examples(23))
    run(top, "one")
    return top


def run(top: Path, out: str, **settings: Any) -> Path:
    config = TrainConfig(**{**SETTINGS, **settings})
    return train(config, ModelConfig(name=str(top / "base")), top / "data", top / out)


def losses(out: Path) -> list[float]:
    return [row["loss"] for row in read_jsonl(out / "log.jsonl")]


def weights_gap(a: Path, b: Path) -> float:
    """Relative L2 difference of the final weights."""
    from safetensors.torch import load_file

    one, two = load_file(a / "model.safetensors"), load_file(b / "model.safetensors")
    assert one.keys() == two.keys()
    assert all(one[name].dtype == two[name].dtype for name in one)
    gap = sum((one[n] - two[n]).double().pow(2).sum() for n in one)
    return float((gap / sum(one[n].double().pow(2).sum() for n in one)).sqrt())


def when_at(log: Path, step: int, act: Any) -> list[list[float]]:
    """Calls `act` with the worker processes once the log has `step` lines; returns a list that gets the losses then."""
    seen: list[list[float]] = []

    def watch() -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end:
            if log.is_file() and len(read_jsonl(log)) >= step:
                seen.append(losses(log.parent))
                found = psutil.Process().children(recursive=True)
                act([p for p in found if "tuneloop.train.worker" in " ".join(p.cmdline())])
                return
            time.sleep(0.01)

    threading.Thread(target=watch, daemon=True).start()
    return seen


def test_lost_process_is_replaced_and_the_run_is_that_of_one_process(
    folders: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen = when_at(folders / "two" / "log.jsonl", 12, lambda workers: os.kill(workers[-1].pid, signal.SIGKILL))
    out = run(folders, "two", devices=2)
    assert "a process was lost; start 2, from the last checkpoint" in capfd.readouterr().err
    assert losses(out)[: len(seen[0])] == seen[0], "steps taken again differ from those before the kill"
    assert losses(out) == pytest.approx(losses(folders / "one"), rel=1e-4)
    assert weights_gap(folders / "one", out) < 1e-3
    assert read_json(out / "manifest.json")["processes"] == 2


def test_shards_load_in_one_process(folders: Path) -> None:
    when_at(folders / "shards" / "log.jsonl", 12, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Interrupted) as stopped:
        run(folders, "shards", devices=2, parallel="fsdp")
    assert stopped.value.exit_code == 143
    out = folders / "shards"
    before = losses(out)
    newest = max(out.glob("checkpoint-*"), key=lambda p: int(p.name.split("-")[1]))
    assert newest.name == f"checkpoint-{len(before)}"
    assert {p.suffix for p in newest.iterdir()} == {".safetensors", ".json"}
    run(folders, "shards", parallel="fsdp")
    assert losses(out)[: len(before)] == before
    assert losses(out) == pytest.approx(losses(folders / "one"), rel=1e-4)
    assert weights_gap(folders / "one", out) < 1e-3


def test_more_devices_than_there_are_and_optimisers_without_shards() -> None:
    with pytest.raises(PrerequisiteError, match="TL-220"):
        check_devices(TrainConfig(devices=4096), "cpu")
    config = TrainConfig(parallel="fsdp").model_copy(update={"optim": "muon"})
    with pytest.raises(UsageError, match="TL-244"):
        check_devices(config, "cpu")


@pytest.mark.parametrize("size", [2, 3])
def test_shares_cover_a_step_once(size: int) -> None:
    shares = [World(rank, size).share(range(8)) for rank in range(size)]
    assert sorted(i for share in shares for i in share) == list(range(8))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
