"""`data`: rows of any common format to a data folder."""

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
    stop_dry,
)


def data(
    sources: Annotated[list[str] | None, typer.Argument(help="files, folders or hub names")] = None,
    out: Out = Path("runs/data"), model: Model = None, template: str | None = None,
    show: Annotated[int, typer.Option(help="print N rows with trained tokens coloured")] = 0,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Reads rows of any common format, cleans, deduplicates and splits them."""
    mode(quiet, verbose)
    settings = load(
        config,
        sets,
        data__source=sources or None,
        model__name=model,
        model__template=template,
    )
    if dry_run:
        stop_dry(settings, "data", as_json)
    from tuneloop.data import prepare

    folder = prepare(settings.data, out, overwrite=overwrite)
    if show:
        from tuneloop.data.show import show as show_rows
        from tuneloop.models import load_tokenizer

        show_rows(
            folder,
            show,
            load_tokenizer(settings.model.name) if model else None,
            settings.model.template,
        )
    from tuneloop.store import read_json

    done(folder, as_json, profile=read_json(folder / "profile.json") if as_json else None)
