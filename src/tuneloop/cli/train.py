"""`train`: a data folder and a base to a tune."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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


def train(
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    out: Out = Path("runs/model"), model: Model = None, config: Config = None, sets: Set = None,
    devices: Annotated[int | None, typer.Option(help="processes, one a device")] = None,
    overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Tunes a model on a data folder; the same command resumes a run that was cut short."""
    mode(quiet, verbose)
    settings = load(config, sets, model__name=model, train__devices=devices)
    if dry_run:
        stop_dry(settings, "train", as_json)
    from tuneloop.train import train as run_train

    done(
        run_train(
            settings.train,
            settings.model,
            need(data, "--data"),
            out,
            overwrite=overwrite,
        ),
        as_json,
    )
