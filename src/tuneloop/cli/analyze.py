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
    kept = _kept(scores, out, data) if settings.analyze.checkpoints else None
    folder = run_analyze(
        settings.analyze, scores, out, against=against, data=data, kept=kept, probe=probe, influence=influence,
        overwrite=overwrite,
    )  # fmt: skip
    found = read_json(folder / "findings.json")
    for line in verdict_lines(found["verdicts"]):
        console.say(line)
    for number, entry in enumerate(found["findings"], start=1):
        console.say(f"{number:>2}. {entry['what']}\n    {entry['how_sure']}\n    do: {entry['do']}")
    done(folder, as_json, **(found if as_json else {}))


def _kept(scores: Path, out: Path, data: Path | None) -> dict[str, Path]:
    """Scores the checkpoints of the model behind `scores` as that was scored."""
    from tuneloop.config import EvalConfig, ModelConfig
    from tuneloop.rounds.looking import kept_scores
    from tuneloop.store import read_json

    config = read_json(scores / "run.json")["config"]
    settings = EvalConfig.model_validate({k: v for k, v in config.items() if k in EvalConfig.model_fields})
    model = ModelConfig.model_validate(config["model"])
    return kept_scores(settings, model, Path(model.name), out.parent / f"{out.name}-checkpoints", data)
