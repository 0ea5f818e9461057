"""What the verbs share: flags, and how a config is read, a dry run shown and a folder announced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from tuneloop import console

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


def load(config: Path | None, sets: list[str] | None, **flags: Any) -> Any:
    """The config, with the origin of each value that is not a default said aloud."""
    from tuneloop.config import load

    dotted = {name.replace("__", "."): value for name, value in flags.items()}
    loaded = load(config, sets or [], dotted)
    for note in loaded.notes:
        console.say(note)
    for name, origin in sorted(loaded.origins.items()):
        console.detail(f"{name} from {origin}")
    return loaded.config


def stop_dry(config: Any, section: str | None, as_json: bool) -> None:
    import yaml

    values = config.model_dump() if section is None else {section: config.model_dump()[section]}
    print(
        json.dumps(values) if as_json else yaml.safe_dump(values, sort_keys=False),
        end="\n" if as_json else "",
    )
    raise typer.Exit(0)


def done(folder: Path, as_json: bool, **more: Any) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder), **more}, default=str))
    else:
        console.say(f"written: {folder}")


def mode(quiet: bool, verbose: bool) -> None:
    console.set_mode(quiet=quiet, verbose=verbose)


def need(path: Path | None, flag: str) -> Path:
    if path is None:
        raise typer.BadParameter(f"missing {flag}")
    return path
