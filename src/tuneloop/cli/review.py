"""`review`: rows whose label is in doubt as a table, and the corrected table read back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop import console
from tuneloop.cli.options import Json, Quiet, Verbose, done, mode

app = typer.Typer(help="Label suspects as a table, and corrections read back.", no_args_is_help=True)
Data = Annotated[Path | None, typer.Option("--data", "-d", help="the data folder of the tune")]


@app.command()
def export(
    analysis: Annotated[Path, typer.Argument(help="an analysis folder")],
    out: Annotated[Path, typer.Option("--out", "-o", help="CSV file to write")] = Path("review.csv"),
    data: Data = None,
    scores: Annotated[Path | None, typer.Option(help="the scores folder that was analysed")] = None,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Writes the suspects; fill `corrected` with the right answer, or `keep` with `no` to drop a row."""
    mode(quiet, verbose)
    from tuneloop.analyze.review import export as run_export

    count = run_export(analysis, data, scores, out)
    console.say(f"{count} rows to review")
    done(out, as_json, rows=count)


@app.command()
def apply(
    table: Annotated[Path, typer.Argument(help="the corrected CSV file")],
    data: Annotated[Path, typer.Option("--data", "-d", help="the data folder it was exported from")],
    out: Annotated[Path, typer.Option("--out", "-o", help="JSONL file to write")] = Path("reviewed.jsonl"),
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Writes the training rows with the corrections: a source for `tuneloop data`."""
    mode(quiet, verbose)
    from tuneloop.analyze.review import apply as run_apply

    counts = run_apply(table, data, out)
    console.say(", ".join(f"{n} {name}" for name, n in counts.items()))
    done(out, as_json, **counts)
