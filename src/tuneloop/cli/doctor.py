"""`doctor`: what tuneloop promises, measured on one's own model, rows and machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import Config, Json, Model, Quiet, Set, Verbose, load, mode


def doctor(
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder; made-up rows without it")] = None,
    model: Model = None, config: Config = None, sets: Set = None,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Checks the invariants on this model, data and machine; exit 5 when one is broken."""
    mode(quiet or not verbose, verbose)
    settings = load(config, sets, model__name=model)
    from tuneloop import doctor as checks

    found = checks.doctor(settings.model, data)
    print(checks.as_json(found) if as_json else "\n".join(checks.lines(found)))
    raise typer.Exit(5 if checks.broken(found) else 0)
