"""`scores`: what can be done with finished scores folders, without the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tuneloop import console
from tuneloop.cli.options import Config, Json, Out, Overwrite, Set, done, load

app = typer.Typer(help="Finished scores: one table, row by row, other metrics, lm-eval's files.", no_args_is_help=True)
Folders = Annotated[list[Path], typer.Argument(help="scores folders")]
One = Annotated[Path, typer.Argument(help="a scores folder")]
Against = Annotated[Path, typer.Option(help="the scores folder to compare with")]


@app.command()
def table(folders: Folders, as_json: Json = False) -> None:
    """Many runs and models in one table."""
    from tuneloop.evaluate.tables import run_lines
    from tuneloop.scored import read_scores

    for line in run_lines(folders):
        console.say(line)
    if as_json:
        print(json.dumps({str(f): read_scores(f)[0]["scores"] for f in folders}))


@app.command()
def diff(scores: One, against: Against, show: Annotated[int, typer.Option(help="changed rows to print")] = 10,
         as_json: Json = False) -> None:  # fmt: skip
    """Two runs on the same rows: paired tests, and the rows that changed, lost ones first."""
    from tuneloop.evaluate.stored import diff as run_diff
    from tuneloop.evaluate.tables import diff_lines

    found = run_diff(scores, against)
    for line in diff_lines(found, show):
        console.say(line)
    if as_json:
        print(json.dumps(found))


@app.command()
def rescore(
    scores: One, metrics: Annotated[str, typer.Option(help="exact_match,rouge_l,judge,...; the first is the headline")],
    out: Annotated[Path, typer.Option("--out", "-o", help="the folder to write")],
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, as_json: Json = False,
) -> None:  # fmt: skip
    """The stored answers under other metrics; `--set eval.judge={model: ...}` names a judge."""
    from tuneloop.evaluate.stored import rescore as run_rescore
    from tuneloop.evaluate.tables import score_lines
    from tuneloop.store import read_json

    settings = load(config, sets)
    folder = run_rescore(scores, metrics.split(","), out, judge=settings.eval.judge, overwrite=overwrite)
    found = read_json(folder / "scores.json")["scores"]
    for line in score_lines(found):
        console.say(line)
    done(folder, as_json, scores=found)


@app.command()
def judge(
    scores: One, against: Against, limit: Annotated[int | None, typer.Option(help="first pairs only")] = None,
    out: Out = Path("runs/judged"), config: Config = None, sets: Set = None, overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:  # fmt: skip
    """A judge (`eval.judge`) chooses between the answers of two runs, each pair in both orders."""
    from tuneloop.errors import UsageError
    from tuneloop.evaluate.stored import judge_pairs
    from tuneloop.evaluate.tables import judged_lines
    from tuneloop.store import read_json

    spec = load(config, sets).eval.judge
    if spec is None:
        raise UsageError(152, "no judge is named", where="eval.judge", cure="--set 'eval.judge={model: ...}'")
    folder = judge_pairs(scores, against, spec, out, limit=limit, overwrite=overwrite)
    found = read_json(folder / "judged.json")
    for line in judged_lines(found["tasks"]):
        console.say(line)
    done(folder, as_json, **found)


@app.command()
def export(scores: One, out: Annotated[Path, typer.Option("--out", "-o", help="the folder to write")],
           as_json: Json = False) -> None:  # fmt: skip
    """The files that lm-eval's `--log_samples` writes."""
    from tuneloop.evaluate.export import export_samples

    files = export_samples(scores, out)
    done(out, as_json, files=[str(f) for f in files])
