"""Every tracker really run: a short training reports to it, and its own reader gives the same numbers back.

    python benchmarks/trackers.py     needs `pip install 'tuneloop[track]'`; what is missing is null, with the reason

Nothing goes over the network: trackio and MLflow write a SQLite file into the run folder, W&B an offline run. Prints
one JSON object last: by tracker its version, how many losses came back, the largest difference to log.jsonl.
"""

from __future__ import annotations

import datetime
import json
import os
import struct
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ |= {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "MLFLOW_DISABLE_TELEMETRY": "true"}


def tensorboard(out: Path) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.value for event in EventAccumulator(str(out / "tensorboard")).Reload().Scalars("loss")]


def trackio(out: Path) -> list[float]:
    from trackio.sqlite_storage import SQLiteStorage

    rows = SQLiteStorage.get_logs("tuneloop", out.name)
    return [row["loss"] for row in rows if "loss" in row]


def mlflow(out: Path) -> list[float]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{out / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tuneloop")
    assert experiment is not None
    run = client.search_runs([experiment.experiment_id])[0]
    return [point.value for point in client.get_metric_history(run.info.run_id, "loss")]


def wandb(out: Path) -> list[float]:
    from wandb.proto.wandb_internal_pb2 import Record

    found = []
    for data in records(next((out / "wandb").glob("offline-run-*/*.wandb")).read_bytes()):
        record = Record()
        record.ParseFromString(data)
        for item in record.history.item:
            if (item.key or item.nested_key[0]) == "loss":
                found.append(float(item.value_json))
    return found


def records(data: bytes) -> Iterator[bytes]:
    """The records of an offline run's file: LevelDB's log format, blocks of 32 KiB, behind 7 bytes of its own."""
    block, place, held = 2**15, 7, b""
    while place + 7 <= len(data):
        if block - place % block < 7:  # too little room for a header: the next block
            place += block - place % block
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        held += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield held
            held = b""


READERS: dict[str, Callable[[Path], list[float]]] = {
    "tensorboard": tensorboard,
    "trackio": trackio,
    "mlflow": mlflow,
    "wandb": wandb,
}


def installed(name: str) -> str:
    for package in (name, f"{name}-skinny"):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return name


def one(name: str, top: Path) -> dict[str, object]:
    from tuneloop.config import ModelConfig, TrainConfig
    from tuneloop.errors import TuneloopError
    from tuneloop.store import read_jsonl
    from tuneloop.train import train

    config = TrainConfig.model_validate({"method": "full", "learning_rate": 1e-3, "report_to": [name], "max_steps": 8})
    try:
        out = train(config, ModelConfig(name=str(top / "base")), top / "data", top / f"by-{name}")
    except TuneloopError as error:
        return {"tracker": name, "found": None, "reason": f"{error.code} {error.what}"}
    want = [row["loss"] for row in read_jsonl(out / "log.jsonl")]
    found = READERS[name](out)
    gap = max(abs(a - b) for a, b in zip(found, want, strict=True))
    return {"tracker": name, "version": installed(name), "losses": len(found), "largest_difference": gap}


def main() -> None:
    from tests.recipe.tiny import tiny_data, tiny_folder

    from tuneloop import console

    console.set_mode(quiet=True)
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        tiny_folder(top / "base")
        tiny_data(top / "data")
        rows = [one(tracker, top) for tracker in READERS]
    print(json.dumps({"date": str(datetime.date.today()), "trackers": rows}))
    sys.exit(0 if all(row.get("largest_difference", 0) < 1e-6 for row in rows) else 1)  # type: ignore[operator]


if __name__ == "__main__":
    main()
