"""`plan`: memory and time before the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tuneloop.cli.options import Config, Json, Model, Quiet, Set, Verbose, load, mode, need


def plan(
    file: Annotated[Path | None, typer.Argument(help="YAML file")] = None,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="a data folder")] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="also run what is recommended, and time it")] = False,
    model: Model = None, config: Config = None, sets: Set = None,
    as_json: Json = False, quiet: Quiet = False, verbose: Verbose = False,
) -> None:  # fmt: skip
    """Memory by part, the micro-batch that fits and the time a run takes, before it starts."""
    mode(quiet, verbose)
    settings = load(file or config, sets, model__name=model)
    from tuneloop.train.plan import plan as run_plan

    found = run_plan(settings.train, settings.model, need(data, "--data"), confirm=confirm)
    if as_json:
        print(json.dumps(found))
        return
    for line in table(found):
        print(line)


def table(found: dict[str, object]) -> list[str]:
    """The plan as lines."""
    values: dict[str, dict[str, int]] = {k: v for k, v in found.items() if isinstance(v, dict)}
    asked, best, probe = values["asked"], values["recommended"], values["probe"]
    size = asked["per_device_train_batch_size"]
    lines = [f"{found['device']}, {found['dtype']}; at the peak of a pass of {size} examples, counted:"]
    lines += [f"  {kind:<12} {_gib(count):>10}" for kind, count in values["counted"].items() if count]
    lines += [f"  {'in all':<12} {_gib(int(str(found['counted_peak_bytes']))):>10}   with the allocator's waste", ""]
    lines += [f"probe, 1 example a pass: {_gib(probe['peak_bytes'])}, {probe['seconds']:.2f} s a pass"]
    lines += [f"expected at {size}: {_gib(asked['peak_bytes'])} of {_gib(int(str(found['free_bytes'])))} free"]
    lines += [
        f"recommended: per_device_train_batch_size {best['per_device_train_batch_size']}, "
        f"gradient_accumulation_steps {best['gradient_accumulation_steps']}: {_gib(best['peak_bytes'])}"
    ]
    if "confirmed" in values:
        lines += [f"  measured: {_gib(values['confirmed']['peak_bytes'])}"]
    seconds = float(str(found["seconds"]))
    return [*lines, f"{found['steps']} steps, about {_time(seconds)}"]


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
