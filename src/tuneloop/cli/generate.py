"""`generate`: a teacher writes rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneloop import console
from tuneloop.cli.options import Config, Dry, Json, Out, Overwrite, Quiet, Set, Verbose, done, load, mode


def generate(
    seeds: Annotated[list[str] | None, typer.Argument(help="data folders or files to start from")] = None,
    out: Out = Path("runs/generate"),
    method: Annotated[str | None, typer.Option(help="self_instruct, evolve, magpie, documents, ...")] = None,
    rows: Annotated[int | None, typer.Option(help="stop after so many accepted rows")] = None,
    weak: Annotated[str | None, typer.Option(help="next_data.jsonl of an analysis")] = None,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Has a teacher write rows; the same command resumes, and never asks twice what was answered."""
    mode(quiet, verbose)
    settings = load(
        config, sets, generate__seeds=seeds or None, generate__method=method, generate__limits__rows=rows,
        generate__weak=weak,
    ).generate  # fmt: skip
    from tuneloop.generate import generate as run
    from tuneloop.generate import preview_run
    from tuneloop.store import read_json
    from tuneloop.teacher import open_teacher, prepare_seeds

    teacher = open_teacher(settings.teacher)
    if dry_run:
        import tempfile

        with tempfile.TemporaryDirectory() as work:
            shown = preview_run(settings, teacher, Path(work) / "seeds", prepare_seeds)
        if as_json:
            print(json.dumps(vars_of(shown)))
            return
        print(shown.prompt)
        console.say(f"\n{estimate(shown)}; no call was made")
        return
    judge = settings.judge and settings.judge.teacher
    folder = run(
        settings, teacher, out, judge=open_teacher(judge) if judge else None, prepare=prepare_seeds, overwrite=overwrite
    )
    done(folder, as_json, **({"summary": read_json(folder / "summary.json")} if as_json else {}))


def vars_of(shown: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(shown)


def estimate(shown: Any) -> str:
    """What the run may cost, and what is not known."""
    if shown.calls is None:
        return "no number of rows is set, so neither calls nor tokens can be estimated"
    cost = "cost unknown (no generate.teacher.price)" if shown.usd is None else f"{shown.usd:.4f} US dollars"
    return (
        f"about {shown.candidates:,} candidates, {shown.calls:,} calls, at most {shown.most_tokens:,} tokens "
        f"(answers as long as they may be), {cost}"
    )
