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
    sources: Annotated[list[str] | None, typer.Argument(help="files, globs, folders, hub names, - for stdin")] = None,
    out: Out = Path("runs/data"), model: Model = None, template: str | None = None,
    show: Annotated[int, typer.Option(help="print N rows with trained tokens coloured")] = 0,
    diff: Annotated[int, typer.Option(help="print N rows before and after cleaning, and stop")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="stop at the first bad row")] = False,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Reads rows of any common format, cleans, deduplicates, decontaminates and splits them."""
    mode(quiet, verbose)
    named = {"data__source": sources or None, "data__strict": strict or None}
    loaded = load(config, sets, **named, model__name=model, model__template=template)
    if dry_run:
        stop_dry(loaded, "data", as_json)
    if diff:
        from tuneloop.data.diff import diff as print_diff

        print_diff(loaded.data, diff)
        return
    from tuneloop.data import prepare
    from tuneloop.store import read_json

    # A model that no one named is not asked for its tokenizer.
    counted = loaded.model if model or "name" in loaded.model.model_fields_set else None
    folder = prepare(loaded.data, out, model=counted, tasks=loaded.eval.tasks, overwrite=overwrite)
    if show:
        from tuneloop.data.show import show as show_rows
        from tuneloop.models import load_tokenizer

        tokenizer = load_tokenizer(counted.name, revision=counted.revision) if counted else None
        show_rows(folder, show, tokenizer, loaded.model.template)
    done(folder, as_json, profile=read_json(folder / "profile.json") if as_json else None)
