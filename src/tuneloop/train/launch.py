"""`devices: N`: N processes under torch's elastic agent, which starts all again when one is lost."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tuneloop import errors
from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.console import is_quiet, say
from tuneloop.errors import Interrupted, PartialError, TuneloopError
from tuneloop.store import read_json, write_json

PATIENCE_S = 600  # a process may be inside a long step or evaluation when a signal comes, and saves behind it


def launch(config: TrainConfig, model: ModelConfig, data: Path, out: Path, *, overwrite: bool) -> None:
    """Runs the train stage in `config.devices` processes and returns when it is done.

    Raises what the stage raised, Interrupted after a signal, PartialError 420 when processes were lost too often.
    """
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    say(f"{config.devices} processes ({config.parallel}); a step holds the same examples as with one")
    with tempfile.TemporaryDirectory(prefix="tuneloop-launch-") as name:
        folder = Path(name)
        job = {"train": config.model_dump(), "model": model.model_dump(), "data": str(data), "out": str(out)}
        write_json(folder / "job.json", {**job, "overwrite": overwrite, "quiet": is_quiet()})
        # What the others print is what the first prints; it is kept to be shown when one of them fails.
        logs = DefaultLogsSpecs(log_dir=name, redirects=dict.fromkeys(range(1, config.devices), Std.ALL))
        settings = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=config.devices,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=config.max_restarts,
            monitor_interval=0.2,
            logs_specs=logs,
            shutdown_timeout=PATIENCE_S,
        )
        try:
            elastic_launch(settings, sys.executable)("-m", "tuneloop.train.worker", str(folder))
        except SignalException as stopped:
            number = int(stopped.sigval)
            _raise_told(folder)
            cure = "run the same command again: it resumes"
            raise Interrupted(number, where=str(out), cure=cure, saved=False) from None
        except ChildFailedError as lost:
            _raise_told(folder)
            raise _lost(config, out, lost) from None
        _raise_told(folder)


def _raise_told(folder: Path) -> None:
    """Raises the coded error that a process left behind, if one did."""
    path = folder / "failure.json"
    if not path.is_file():
        return
    found: dict[str, Any] = read_json(path)
    if found["kind"] == "Interrupted":
        raise Interrupted(int(found["exit"]) - 128, where=found["where"], cure=found["do"])
    kind: type[TuneloopError] = getattr(errors, found["kind"])
    raise kind(
        int(found["code"].removeprefix("TL-")),
        found["what"],
        where=found["where"],
        expected=found["expected"],
        cure=found["do"],
    )


def _lost(config: TrainConfig, out: Path, lost: Any) -> PartialError:
    rank, failure = lost.get_first_failure()
    code = failure.exitcode
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return PartialError(
        420,
        f"process {rank} of {config.devices} was lost ({how}), and {config.max_restarts} restarts did not help",
        where=str(out),
        expected="processes that live to the end; what was saved before is kept",
        cure="see the lines above for the cause, then run the same command again: it resumes",
    )


def tell_failure(folder: Path, error: TuneloopError) -> None:
    """Leaves a coded error for the process that launched this one; the first one told is kept."""
    path = folder / "failure.json"
    if not path.exists():
        write_json(path, {**error.as_dict(), "kind": type(error).__name__})


def read_job(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    return found
