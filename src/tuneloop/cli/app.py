"""The verbs. Flags are few: a config file, `--set key=value`, and what nobody should have to write YAML for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneloop import console

app = typer.Typer(
    help="Fine-tune a language model and prove that it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML file with sections model, data, train, ..."),
]
Set = Annotated[list[str] | None, typer.Option("--set", help="key.sub=value; wins over the file")]
Out = Annotated[Path, typer.Option("--out", "-o", help="the folder to write")]
Model = Annotated[str | None, typer.Option("--model", "-m", help="folder, hub name, or 'world'")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace another run in the output folder")]
Dry = Annotated[bool, typer.Option("--dry-run", help="check and print the config, start nothing")]
Json = Annotated[bool, typer.Option("--json", help="one JSON object on stdout")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="warnings and errors only")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="more about what happens")]


def _load(config: Path | None, sets: list[str] | None, **flags: Any) -> Any:
    """The config, with the origin of each value that is not a default said aloud."""
    from tuneloop.config import load

    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    loaded = load(config, sets or [], dotted)
    for note in loaded.notes:
        console.say(note)
    for name, origin in sorted(loaded.origins.items()):
        console.detail(f"{name} from {origin}")
    return loaded.config


def _stop_dry(config: Any, section: str | None, as_json: bool) -> None:
    import yaml

    values = config.model_dump() if section is None else {section: config.model_dump()[section]}
    print(
        json.dumps(values) if as_json else yaml.safe_dump(values, sort_keys=False),
        end="\n" if as_json else "",
    )
    raise typer.Exit(0)


def _done(folder: Path, as_json: bool, **more: Any) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder), **more}, default=str))
    else:
        console.say(f"written: {folder}")


def _mode(quiet: bool, verbose: bool) -> None:
    console.set_mode(quiet=quiet, verbose=verbose)


@app.command()
def demo(
    out: Out = Path("runs/demo"), seed: int = 0, overwrite: Overwrite = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """The whole loop on the embedded world: no downloads, no GPU."""
    from tuneloop.loop import demo as run_demo

    _mode(quiet, verbose)
    _done(run_demo(out, seed=seed, overwrite=overwrite), as_json)


@app.command()
def data(
    sources: Annotated[list[str] | None, typer.Argument(help="files, folders or hub names")] = None,
    out: Out = Path("runs/data"), model: Model = None, template: str | None = None,
    show: Annotated[int, typer.Option(help="print N rows with trained tokens coloured")] = 0,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Reads rows of any common format, cleans, deduplicates and splits them."""
    _mode(quiet, verbose)
    settings = _load(
        config,
        sets,
        data__source=sources or None,
        model__name=model,
        model__template=template,
    )
    if dry_run:
        _stop_dry(settings, "data", as_json)
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

    _done(folder, as_json, profile=read_json(folder / "profile.json") if as_json else None)


@app.command()
def train(
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    out: Out = Path("runs/model"), model: Model = None, config: Config = None, sets: Set = None,
    overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Tunes a model on a data folder; the same command resumes a run that was cut short."""
    _mode(quiet, verbose)
    settings = _load(config, sets, model__name=model)
    if dry_run:
        _stop_dry(settings, "train", as_json)
    from tuneloop.train import train as run_train

    _done(
        run_train(
            settings.train,
            settings.model,
            _need(data, "--data"),
            out,
            overwrite=overwrite,
        ),
        as_json,
    )


@app.command(name="eval")
def evaluate(
    out: Out = Path("runs/scores"), model: Model = None,
    tasks: Annotated[str | None, typer.Option(help="arc_easy,mmlu:5,...")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="also score this data folder's test split")] = None,
    config: Config = None, sets: Set = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Scores a model on benchmarks and on the test split of a data folder."""
    _mode(quiet, verbose)
    settings = _load(config, sets, model__name=model, eval__tasks=tasks.split(",") if tasks else None)
    if dry_run:
        _stop_dry(settings, "eval", as_json)
    from tuneloop.evaluate import evaluate as run_evaluate
    from tuneloop.store import read_json

    folder = run_evaluate(settings.eval, settings.model, out, data=data, overwrite=overwrite)
    scores = read_json(folder / "scores.json")["scores"]
    for row in scores:
        console.say(
            f"{row['task']:<24} {row['metric']:<10} {row['value']:.4f} "
            f"[{row['low']:.4f}, {row['high']:.4f}]  n {row['n']}"
        )
    _done(folder, as_json, scores=scores)


@app.command()
def compare(
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    tune: Annotated[Path | None, typer.Option(help="the tuned model")] = None,
    out: Out = Path("runs/compare"), model: Model = None, config: Config = None, sets: Set = None,
    overwrite: Overwrite = False, as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Base, base with a few-shot prompt and a tune, on the same rows."""
    _mode(quiet, verbose)
    settings = _load(config, sets, model__name=model)
    from tuneloop.evaluate import compare as run_compare
    from tuneloop.loop import contenders

    chosen = contenders(settings, _need(tune, "--tune"))
    _done(run_compare(settings.eval, chosen, out, data=data, overwrite=overwrite), as_json)


@app.command()
def analyze(
    scores: Annotated[Path, typer.Argument(help="a scores folder")],
    against: Annotated[Path | None, typer.Option(help="the scores of the base on the same rows")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="the data folder it was tuned on")] = None,
    out: Out = Path("runs/analysis"), config: Config = None, sets: Set = None, overwrite: Overwrite = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Paired verdicts, causes of errors and the weakest slices."""
    _mode(quiet, verbose)
    settings = _load(config, sets)
    from tuneloop.analyze import analyze as run_analyze
    from tuneloop.loop import verdict_line
    from tuneloop.store import read_json

    folder = run_analyze(settings.analyze, scores, out, against=against, data=data, overwrite=overwrite)
    found = read_json(folder / "findings.json")
    for row in found["verdicts"]:
        console.say(verdict_line(row))
    _done(folder, as_json, **(found if as_json else {}))


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="a round folder: data, model, compare, analysis")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="default: FOLDER/report")] = None,
    title: str = "tuneloop report", as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """One self-contained HTML file from the folders of a round."""
    _mode(quiet, verbose)
    from tuneloop.loop import report_round

    _done(report_round(folder, out or folder / "report", title), as_json)


@app.command()
def run(
    file: Annotated[Path, typer.Argument(help="YAML file")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="default: output_dir, or runs/<name>")] = None,
    sets: Set = None, model: Model = None, overwrite: Overwrite = False, dry_run: Dry = False,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """All stages of a config, from rows to report."""
    _mode(quiet, verbose)
    settings = _load(file, sets, model__name=model)
    if dry_run:
        _stop_dry(settings, None, as_json)
    from tuneloop.loop import run as run_loop

    target = out or Path(settings.output_dir or Path("runs") / file.stem)
    _done(run_loop(settings, target, overwrite=overwrite), as_json)


@app.command()
def chat(
    model: Annotated[str, typer.Option("--model", "-m", help="a model or tune")],
    against: Annotated[str | None, typer.Option(help="a second model that answers the same prompts")] = None,
    template: str | None = None,
    prompt: Annotated[str | None, typer.Option(help="ask once and leave")] = None,
    max_new_tokens: int = 128,
) -> None:
    """Talk to a model; `--against` shows a second one's answer below."""
    from tuneloop.cli.chat import chat as run_chat

    run_chat([model, *([against] if against else [])], template, prompt, max_new_tokens)


def _need(path: Path | None, flag: str) -> Path:
    if path is None:
        raise typer.BadParameter(f"missing {flag}")
    return path
