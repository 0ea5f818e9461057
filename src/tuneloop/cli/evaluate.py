"""`eval` scores one model on tasks and on a data folder's test split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop import console
from tuneloop.cli.options import (
    Config,
    Dry,
    Json,
    Model,
    Out,
    Overwrite,
    Quiet,
    Set,
    Verbose,
    done,
    load,
    mode,
    stop_dry,
)


def evaluate(
    out: Out = Path("runs/scores"), model: Model = None,
    tasks: Annotated[str | None, typer.Option(help="arc_easy,mmlu:5,my_task.py,...")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="also score this data folder's test split")] = None,
    metrics: Annotated[str | None, typer.Option(help="exact_match,rouge_l,...: of the test split")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="200 rows a task, and what they can detect")] = False,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Scores a model on benchmarks and on the test split of a data folder."""
    mode(quiet, verbose)
    settings = load(
        config, sets, model__name=model, eval__tasks=tasks.split(",") if tasks else None,
        eval__metrics=metrics.split(",") if metrics else None,
        eval__quick=quick or None,
    )  # fmt: skip
    if dry_run:
        stop_dry(settings, "eval", as_json)
    from tuneloop.evaluate.run import evaluate as run_evaluate
    from tuneloop.evaluate.tables import score_lines
    from tuneloop.store import read_json

    folder = run_evaluate(settings.eval, settings.model, out, data=data, overwrite=overwrite)
    scores = read_json(folder / "scores.json")["scores"]
    for line in score_lines(scores):
        console.say(line)
    done(folder, as_json, scores=scores)
