"""`eval` scores one model, `compare` several on the same rows."""

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
    need,
    stop_dry,
)


def evaluate(
    out: Out = Path("runs/scores"), model: Model = None,
    tasks: Annotated[str | None, typer.Option(help="arc_easy,mmlu:5,...")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="also score this data folder's test split")] = None,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Scores a model on benchmarks and on the test split of a data folder."""
    mode(quiet, verbose)
    settings = load(config, sets, model__name=model, eval__tasks=tasks.split(",") if tasks else None)
    if dry_run:
        stop_dry(settings, "eval", as_json)
    from tuneloop.evaluate import evaluate as run_evaluate
    from tuneloop.store import read_json

    folder = run_evaluate(settings.eval, settings.model, out, data=data, overwrite=overwrite)
    scores = read_json(folder / "scores.json")["scores"]
    for row in scores:
        console.say(
            f"{row['task']:<24} {row['metric']:<10} {row['value']:.4f} "
            f"[{row['low']:.4f}, {row['high']:.4f}]  n {row['n']}"
        )
    done(folder, as_json, scores=scores)


def compare(
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    tune: Annotated[Path | None, typer.Option(help="the tuned model")] = None,
    out: Out = Path("runs/compare"), model: Model = None, config: Config = None, sets: Set = None,
    overwrite: Overwrite = False, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Base, base with a few-shot prompt and a tune, on the same rows."""
    mode(quiet, verbose)
    settings = load(config, sets, model__name=model)
    from tuneloop.evaluate import compare as run_compare
    from tuneloop.loop import contenders

    chosen = contenders(settings, need(tune, "--tune"))
    done(run_compare(settings.eval, chosen, out, data=data, overwrite=overwrite), as_json)
