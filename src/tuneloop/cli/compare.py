"""`compare`: the base under several prompts, and tunes, on the same rows."""

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


def compare(
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    tune: Annotated[list[Path] | None, typer.Option(help="a tuned model; may be repeated")] = None,
    contenders: Annotated[str | None, typer.Option(help="base,few_shot,tune,...; default: all that fit")] = None,
    out: Out = Path("runs/compare"), model: Model = None, config: Config = None, sets: Set = None,
    overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Prompts against tunes on the same rows: one ranked table, verdicts corrected for all tried, what to do."""
    mode(quiet, verbose)
    kinds = contenders.split(",") if contenders else None
    settings = load(config, sets, model__name=model, compare__contenders=kinds)
    if dry_run:
        stop_dry(settings, "compare", as_json)
    from tuneloop.evaluate.compare import compare as run_compare
    from tuneloop.evaluate.contenders import resolve
    from tuneloop.evaluate.run import Loaded
    from tuneloop.evaluate.tables import compare_lines
    from tuneloop.store import read_json

    loaded = Loaded()
    tunes = dict(zip(_names(tune or []), tune or [], strict=True))
    tunes |= {name: Path(folder) for name, folder in settings.compare.tunes.items()}
    chosen = resolve(
        settings.eval, settings.compare, settings.model, tunes, out, data=data, loaded=loaded, overwrite=overwrite
    )
    folder = run_compare(
        settings.eval, chosen, out, settings=settings.compare, data=data, overwrite=overwrite, loaded=loaded
    )
    found = read_json(folder / "contenders.json")
    for line in compare_lines(found):
        console.say(line)
    done(folder, as_json, **({k: v for k, v in found.items() if k != "contenders"} if as_json else {}))


def _names(tunes: list[Path]) -> list[str]:
    """'tune' for a single one, else 'tune-1', 'tune-2', ... in the order given."""
    return ["tune"] if len(tunes) == 1 else [f"tune-{i}" for i in range(1, len(tunes) + 1)]
