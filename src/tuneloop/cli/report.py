"""`report`: the HTML file of a round."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import Json, Quiet, Verbose, done, mode


def report(
    folder: Annotated[Path, typer.Argument(help="a round folder: data, model, compare, analysis; or a loop of rounds")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="default: FOLDER/report")] = None,
    title: str = "tuneloop report", as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """One self-contained HTML file from the folders of a round, or of a loop of rounds."""
    mode(quiet, verbose)
    from tuneloop.loop import report_round

    done(report_round(folder, out or folder / "report", title), as_json)
