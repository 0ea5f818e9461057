"""Curves elsewhere: TensorBoard, trackio, MLflow, W&B, each imported only when asked for and none over the network.

`log.jsonl` is written first and is the record; a tracker gets the numbers of the same lines.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from tuneloop.console import say
from tuneloop.errors import PrerequisiteError

Numbers = dict[str, float]
# Given the numbers of a step; and what to call at the end.
Tracker = tuple[Callable[[int, Numbers], None], Callable[[], Any]]


def _tensorboard(out: Path, settings: dict[str, Any]) -> Tracker:
    from torch.utils.tensorboard import SummaryWriter

    writer: Any = SummaryWriter(str(out / "tensorboard"))
    writer.add_text("settings", "\n".join(f"- {key}: {value}" for key, value in settings.items()))

    def log(step: int, numbers: Numbers) -> None:
        for name, value in numbers.items():
            writer.add_scalar(name, value, step)

    say(f"tensorboard --logdir {out / 'tensorboard'}")
    return log, writer.close


def _trackio(out: Path, settings: dict[str, Any]) -> Tracker:
    os.environ.setdefault("TRACKIO_DIR", str(out.resolve() / "trackio"))
    import trackio

    trackio.init(project="tuneloop", name=out.name, config=settings, resume="allow", embed=False)
    return lambda step, numbers: trackio.log(numbers, step=step), trackio.finish


def _mlflow(out: Path, settings: dict[str, Any]) -> Tracker:
    import mlflow

    if "MLFLOW_TRACKING_URI" not in os.environ:
        mlflow.set_tracking_uri(f"sqlite:///{(out / 'mlflow.db').resolve()}")
    mlflow.set_experiment("tuneloop")
    mlflow.start_run(run_name=out.name)
    mlflow.log_params({key: str(value)[:500] for key, value in settings.items()})
    return lambda step, numbers: mlflow.log_metrics(numbers, step=step), mlflow.end_run


def _wandb(out: Path, settings: dict[str, Any]) -> Tracker:
    import wandb

    # Offline unless the user's environment says otherwise; `wandb sync` uploads later.
    mode = os.environ.get("WANDB_MODE", "offline")
    run: Any = wandb.init(project="tuneloop", name=out.name, dir=str(out), config=settings, mode=mode)
    return lambda step, numbers: run.log(numbers, step=step), run.finish


KNOWN: dict[str, Callable[[Path, dict[str, Any]], Tracker]] = {
    "tensorboard": _tensorboard,
    "trackio": _trackio,
    "mlflow": _mlflow,
    "wandb": _wandb,
}


@contextmanager
def trackers(names: Sequence[str], out: Path, settings: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """A function that takes each line of the log. Raises PrerequisiteError 222 where a package is missing."""
    with ExitStack() as stack:
        logs = []
        for name in names:
            log, close = _open(name, out, settings)
            stack.callback(close)
            logs.append(log)

        def track(row: dict[str, Any]) -> None:
            numbers = {k: float(v) for k, v in row.items() if isinstance(v, int | float) and k != "step"}
            for log in logs:
                log(int(row["step"]), numbers)

        yield track


def _open(name: str, out: Path, settings: dict[str, Any]) -> Tracker:
    try:
        return KNOWN[name](out, settings)
    except ImportError as error:
        raise PrerequisiteError(
            222,
            f"{name} is not installed ({error})",
            where="train.report_to",
            cure=f"pip install {name}, or leave it out: log.jsonl is written in any case",
        ) from error
