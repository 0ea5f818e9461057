"""The whole loop: `demo` on the embedded world, `run` on a config."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import Dry, Json, Model, Out, Overwrite, Quiet, Set, Verbose, done, load, mode, stop_dry


def demo(
    out: Out = Path("runs/demo"), seed: int = 0, overwrite: Overwrite = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """The whole loop on the embedded world: no downloads, no GPU."""
    from tuneloop.loop import demo as run_demo

    mode(quiet, verbose)
    done(run_demo(out, seed=seed, overwrite=overwrite), as_json)


def run(
    file: Annotated[Path, typer.Argument(help="YAML file")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="default: output_dir, or runs/<name>")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="turns of the loop; above 1 half of the test is kept aside")] = 1,
    sets: Set = None, model: Model = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """All stages of a config, from rows to report."""
    mode(quiet, verbose)
    settings = load(file, sets, model__name=model)
    if dry_run:
        stop_dry(settings, None, as_json)
    from tuneloop.loop import run as run_loop

    target = out or Path(settings.output_dir or Path("runs") / file.stem)
    if rounds > 1:
        from tuneloop.rounds import run_rounds

        return done(run_rounds(settings, target, rounds, overwrite=overwrite), as_json)
    done(run_loop(settings, target, overwrite=overwrite), as_json)
