"""`sweep`: the best settings by trying."""

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


def sweep(
    file: Annotated[Path | None, typer.Argument(help="YAML file")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    trials: Annotated[int | None, typer.Option(help="how many settings to try")] = None,
    jobs: Annotated[int | None, typer.Option(help="processes side by side")] = None,
    out: Out = Path("runs/sweep"), model: Model = None, config: Config = None, sets: Set = None,
    overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Tries settings of the train section (sweep.space) and keeps the best; the same command resumes."""
    mode(quiet, verbose)
    settings = load(file or config, sets, model__name=model, sweep__trials=trials, sweep__jobs=jobs)
    if dry_run:
        stop_dry(settings, "sweep", as_json)
    from tuneloop.train.sweep import read
    from tuneloop.train.sweep import sweep as run_sweep

    folder = run_sweep(settings.sweep, settings.train, settings.model, need(data, "--data"), out, overwrite=overwrite)
    found = read(folder)
    ranked = sorted(found["trials"], key=lambda row: row["trial"] != found["best"]["trial"])
    for row in ranked[:10]:
        values = "  ".join(f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
                           for key, value in row["values"].items())  # fmt: skip
        score = row[found["metric"]]
        shown = "-" if score is None else f"{score:.4f}"
        console.say(f"trial {row['trial']:>3}  {row['state']:<9} {found['metric']} {shown:>8}  {values}"[:100])
    done(folder, as_json, **(found if as_json else {}))
