"""`analyze`: verdicts, causes, slices."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tuneloop import console
from tuneloop.cli.options import Config, Json, Out, Overwrite, Quiet, Set, Verbose, done, load, mode


def analyze(
    scores: Annotated[Path, typer.Argument(help="a scores folder")],
    against: Annotated[Path | None, typer.Option(help="the scores of the base on the same rows")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="the data folder it was tuned on")] = None,
    out: Out = Path("runs/analysis"), config: Config = None, sets: Set = None, overwrite: Overwrite = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Paired verdicts, causes of errors with what to do about each, and the weakest slices."""
    mode(quiet, verbose)
    settings = load(config, sets)
    from tuneloop.analyze import analyze as run_analyze
    from tuneloop.loop import verdict_lines
    from tuneloop.store import read_json

    probe = influence = None
    if settings.analyze.probes or settings.analyze.influence:
        from tuneloop.rounds.looking import influence_with, probe_with

        name = str(read_json(scores / "scores.json")["model"])
        probe = probe_with(name) if settings.analyze.probes else None
        influence = influence_with(name) if settings.analyze.influence else None
    folder = run_analyze(
        settings.analyze, scores, out, against=against, data=data, probe=probe, influence=influence, overwrite=overwrite
    )
    found = read_json(folder / "findings.json")
    for line in verdict_lines(found["verdicts"]):
        console.say(line)
    for number, entry in enumerate(found["findings"], start=1):
        console.say(f"{number:>2}. {entry['what']}\n    {entry['how_sure']}\n    do: {entry['do']}")
    done(folder, as_json, **(found if as_json else {}))
