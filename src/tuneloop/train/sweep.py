"""The best settings by trying: Optuna over a shared journal, resumable, with poor trials stopped early."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from tuneloop.config import ModelConfig, SweepConfig, TrainConfig
from tuneloop.config.sweep import Range
from tuneloop.console import progress, say
from tuneloop.errors import Interrupted, PartialError, UsageError, nearest
from tuneloop.models import load_shape, locate
from tuneloop.records import read_examples
from tuneloop.store import open_run, read_json, require_run, write_json, write_text
from tuneloop.train.schedule import auto_rate
from tuneloop.train.trial import open_study, tried

DONE = ("COMPLETE", "PRUNED")


def sweep(
    config: SweepConfig, train: TrainConfig, model: ModelConfig, data: Path, out: Path, *, overwrite: bool = False
) -> Path:
    """Tries `config.trials` settings and writes `sweep.json` and `best.yaml`; the same call resumes, or adds trials."""
    require_run(data, "data")
    config = _checked(config, train, model, data)
    settings = {"sweep": config.model_dump(), "train": train.model_dump(), "model": model.model_dump()}
    inputs: dict[str, str | Path] = {"data": data, "model": locate(model.name)}
    with open_run(out, stage="sweep", config=settings, inputs=inputs, overwrite=overwrite) as run:
        study = open_study(out, config, train)
        if run.state == "done":
            if _finished(study) >= config.trials:
                say(f"{out}: finished before, skipped")
                return out
            (out / "manifest.json").unlink()
        write_json(out / "sweep-run.json", {**settings, "data": str(data.resolve())})
        _take_up_lost(study)
        _work(out, config, study)
        found = summary(study, config, train)
        write_json(out / "sweep.json", found)
        write_text(out / "best.yaml", _yaml(train, found["best"]))
        run.finish(trials=len(found["trials"]), best=found["best"])
    return out


def _checked(config: SweepConfig, train: TrainConfig, model: ModelConfig, data: Path) -> SweepConfig:
    """With a space. Raises UsageError 251-253 before anything starts."""
    unknown = [key for key in config.space if key not in TrainConfig.model_fields]
    if unknown:
        raise UsageError(
            251, f"unknown key {unknown[0]}", where="sweep.space", cure=nearest(unknown[0], TrainConfig.model_fields)
        )
    if train.metric_for_best_model == "valid_loss" and not read_examples(data, "valid"):
        raise UsageError(
            252,
            "nothing to compare trials by: the data has no valid split",
            where="train.metric_for_best_model",
            cure="set data.valid_fraction, or name a task in train.eval_tasks",
        )
    if train.devices > 1:
        raise UsageError(
            253, "a trial runs on one device", where="train.devices", cure="--jobs N runs trials side by side"
        )
    if config.space:
        _try_ends(config, train)
        return config
    rate = train.learning_rate or auto_rate(train.method, _parameters(model))[0]
    say(f"no space given: learning_rate from {rate / 10:.2g} to {rate * 10:.2g}, logarithmic")
    return config.model_copy(update={"space": {"learning_rate": Range(low=rate / 10, high=rate * 10, log=True)}})


def _try_ends(config: SweepConfig, train: TrainConfig) -> None:
    """Raises UsageError 251 where a value that may be drawn is none that the key can have."""
    for key, over in config.space.items():
        values: list[Any] = list(over.choices or [])
        if over.low is not None and over.high is not None:
            inside = over.low + (over.high - over.low) * 0.37
            values = [over.low, over.high, round(inside) if over.whole else inside]
        for value in values:
            try:
                tried(train, {key: value})
            except ValidationError as error:
                raise UsageError(
                    251, f"{key} cannot be {value!r}: {error.errors()[0]['msg']}", where=f"sweep.space.{key}",
                    cure="whole: true draws whole numbers; else move the ends or the choices",
                ) from error  # fmt: skip


def _parameters(model: ModelConfig) -> int:
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return int(AutoModelForCausalLM.from_config(load_shape(model.name, model.revision)).num_parameters())


def _finished(study: Any) -> int:
    return sum(trial.state.name in DONE for trial in study.get_trials(deepcopy=False))


def _take_up_lost(study: Any) -> None:
    """A trial whose process was killed is tried again with the same values, and resumes in its folder."""
    from optuna.trial import TrialState

    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        study.tell(trial.number, state=TrialState.FAIL)
        if trial.params:
            study.enqueue_trial(trial.params, user_attrs={"folder": trial.user_attrs.get("folder")})
            say(f"trial {trial.number} was lost; it goes on where its last checkpoint is")


def _work(out: Path, config: SweepConfig, study: Any) -> None:
    """Runs the processes; on a signal they save and stop. Raises Interrupted, or PartialError 423."""
    command = [sys.executable, "-m", "tuneloop.train.trial", str(out)]
    logs = [open(out / f"worker-{n}.log", "w", encoding="utf-8") for n in range(config.jobs)]  # noqa: SIM115
    workers = [subprocess.Popen([*command, str(n)], stderr=logs[n], stdout=logs[n]) for n in range(config.jobs)]
    caught: list[int] = []
    before = {n: signal.signal(n, lambda number, _: caught.append(number)) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        with progress("sweep", config.trials) as bar:
            while any(worker.poll() is None for worker in workers):
                time.sleep(0.5)
                bar.advance(_finished(study) - bar.done)
                if caught:
                    _stop(workers)
                    raise Interrupted(caught[0], where=str(out), cure="run the same command again: it resumes")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for log in logs:
            log.close()
    broken = [n for n, worker in enumerate(workers) if worker.returncode]
    if broken and _finished(study) < config.trials:
        last = (out / f"worker-{broken[0]}.log").read_text(encoding="utf-8").strip()
        raise PartialError(
            423,
            f"{len(broken)} of {config.jobs} processes failed; {_finished(study)} of {config.trials} trials are done",
            where=f"{out}/worker-{broken[0]}.log: {last[-300:]}",
            cure="mend the cause, then run the same command again: it resumes",
        )


def _stop(workers: list[subprocess.Popen[bytes]]) -> None:
    for worker in workers:
        worker.terminate()
    for worker in workers:
        try:
            worker.wait(timeout=120)
        except subprocess.TimeoutExpired:  # its last checkpoint stands
            worker.kill()


def summary(study: Any, config: SweepConfig, train: TrainConfig) -> dict[str, Any]:
    """Every trial, the best of them and what was varied."""
    rows = [
        {
            "trial": trial.number,
            "state": trial.state.name.lower(),
            "values": trial.params,
            train.metric_for_best_model: trial.value if trial.value is not None else _last(trial),
            "steps": max(trial.intermediate_values, default=0),
            "folder": trial.user_attrs.get("folder"),
            "why": trial.user_attrs.get("stopped", ""),
        }
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in DONE
    ]
    space = {key: over.model_dump(exclude_none=True) for key, over in config.space.items()}
    done = [row for row in rows if row["state"] == "complete"]
    if not done:
        raise PartialError(424, "no trial came to its end", where="sweep.json", cure="widen or move sweep.space")
    return {"metric": train.metric_for_best_model, "space": space, "trials": rows, "best": _best(study, rows)}


def _last(trial: Any) -> float | None:
    values: dict[int, float] = trial.intermediate_values
    return values[max(values)] if values else None


def _best(study: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    number = study.best_trial.number
    return next(row for row in rows if row["trial"] == number)


def _yaml(train: TrainConfig, best: dict[str, Any]) -> str:
    import yaml

    changed = {**tried(train, best["values"]).model_dump(exclude_defaults=True), **best["values"]}
    return yaml.safe_dump({"train": changed}, sort_keys=False)


def read(out: Path) -> dict[str, Any]:
    """The result of a finished sweep."""
    found: dict[str, Any] = read_json(out / "sweep.json")
    return found
