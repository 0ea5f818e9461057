"""One process of a sweep: takes trials from the shared journal until there are enough of them.

`python -m tuneloop.train.trial SWEEP_FOLDER NUMBER`, started by `sweep`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

from tuneloop import console
from tuneloop.config import ModelConfig, SweepConfig, TrainConfig
from tuneloop.config.sweep import Range
from tuneloop.errors import Interrupted, PrerequisiteError, TuneloopError
from tuneloop.store import read_json
from tuneloop.train.run import train

# What can go wrong with one choice of values and not with another: the loss is no number, or explodes.
OF_THE_VALUES = {351, 421}


class Stopped(Exception):
    """A trial that is worse than the others were at this step."""


def open_study(folder: Path, config: SweepConfig, train: TrainConfig, worker: int = 0) -> Any:
    """The study in `folder/journal.log`, which any number of processes may share. Raises PrerequisiteError 223."""
    try:
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend
    except ImportError as error:
        raise PrerequisiteError(
            223, "optuna is not installed", where="tuneloop sweep", cure="pip install 'tuneloop[sweep]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    lower = train.metric_for_best_model == "valid_loss"
    study = optuna.create_study(
        storage=storage,
        study_name="sweep",
        load_if_exists=True,
        direction="minimize" if lower else "maximize",
        pruner=optuna.pruners.MedianPruner(n_startup_trials=config.warmup_trials),
    )
    # Another seed for each process and each start, or a resumed sweep would try its first values again.
    seed = (config.seed * 7919 + worker * 104_729 + len(study.trials)) % 2**32
    samplers = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}
    study.sampler = samplers[config.sampler](seed=seed)
    return study


def suggest(trial: Any, space: dict[str, Range]) -> dict[str, Any]:
    """Values of this trial for each key of the space."""
    found: dict[str, Any] = {}
    for key, over in space.items():
        if over.choices:
            found[key] = trial.suggest_categorical(key, over.choices)
        elif over.whole:
            found[key] = trial.suggest_int(key, int(over.low or 0), int(over.high or 0), log=over.log)
        else:
            found[key] = trial.suggest_float(key, over.low, over.high, log=over.log)
    return found


def work(folder: Path, worker: int) -> None:
    """Trials one after the other until `trials` of them have a value or were stopped."""
    from optuna.trial import TrialState

    header = read_json(folder / "sweep-run.json")
    config, base = SweepConfig(**header["sweep"]), TrainConfig(**header["train"])
    study = open_study(folder, config, base, worker)
    while True:
        trial = study.ask()
        failed = sum(t.state == TrialState.FAIL for t in study.get_trials(deepcopy=False))
        if trial.number >= config.trials + failed:
            study.tell(trial, state=TrialState.FAIL)
            return
        # A trial that takes up a lost one goes on in its folder.
        out = folder / (trial.user_attrs.get("folder") or f"trial-{trial.number:03d}")
        trial.set_user_attr("folder", out.name)
        run_trial(study, trial, config, base, ModelConfig(**header["model"]), Path(header["data"]), out)


def run_trial(
    study: Any, trial: Any, config: SweepConfig, base: TrainConfig, model: ModelConfig, data: Path, out: Path
) -> None:
    """Trains with the values of one trial and tells the study how it went."""
    from optuna.trial import TrialState

    values = suggest(trial, config.space)
    metric = base.metric_for_best_model

    def told(row: dict[str, Any]) -> None:
        if metric in row:
            trial.report(row[metric], row["step"])
            if config.prune and trial.should_prune():
                raise Stopped

    try:
        train(tried(base, values), model, data, out, told=told)
    except Stopped:
        study.tell(trial, state=TrialState.PRUNED)
    except Interrupted:
        raise  # it stays open, and is taken up by the next start
    except TuneloopError as error:
        if error.number not in OF_THE_VALUES:
            study.tell(trial, state=TrialState.FAIL)
            raise
        trial.set_user_attr("stopped", error.what)
        study.tell(trial, state=TrialState.PRUNED)
    else:
        value = read_json(out / "manifest.json")["best_metric"]["value"]
        if value is None:
            trial.set_user_attr("stopped", f"no valid row could be measured by {metric}")
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, float(value))
    for path in out.glob("checkpoint-*"):
        shutil.rmtree(path)


def tried(base: TrainConfig, values: dict[str, Any]) -> TrainConfig:
    """The config of a trial: what is varied is not measured (`auto`) as well."""
    left = [key for key in base.auto if key not in values]
    return TrainConfig(**{**base.model_dump(), **values, "auto": left})


def main(folder: Path, worker: int) -> int:
    console.set_mode(quiet=True)
    try:
        work(folder, worker)
    except TuneloopError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
