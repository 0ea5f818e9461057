"""Stage: rows of any common format -> a data folder with train, valid, test, rejected and a profile.

Two passes, so that text is never held whole. The first reads, converts, cleans and filters rows into shards on disk
and keeps some numbers a row. On those numbers duplicates, groups, splits and overlaps are decided. The second pass
writes the rows that are left. A run that was cut short goes on with the shards it has.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuneloop.config import DataConfig, ModelConfig, TaskSpec
from tuneloop.console import say
from tuneloop.data import formats, passes, sources
from tuneloop.data.containers import spool_stdin
from tuneloop.errors import TuneloopError, UsageError
from tuneloop.records import SPLITS
from tuneloop.store import open_run

__all__ = ["prepare"]
WORK = ".work"
SCHEMA = 2


def prepare(
    config: DataConfig,
    out: Path,
    *,
    model: ModelConfig | None = None,
    tasks: Iterable[TaskSpec] = (),
    overwrite: bool = False,
) -> Path:
    """Reads, checks, cleans, deduplicates, decontaminates and splits the rows of `config.source` into `out`.

    `model` names the tokenizer and template for token counts and the length policy; `tasks` are those that will be
    reported, against which training rows are checked unless `config.decontaminate` names others.
    Raises UsageError for what cannot be found, DataError for a file that cannot be read or when no row is left.
    Rows that cannot be used stand in `out/rejected` with the reason; rows in = kept + rejected.
    """
    out = Path(out)
    if not config.source:
        raise UsageError(136, "no data", where="data.source", expected="files, folders or hub names")
    if config.max_length is not None and model is None:
        raise UsageError(
            138, "max_length counts tokens, and no model is named", where="data.max_length", cure="--model M"
        )
    formats.named_format(config.format, config.columns)
    spooled = spool_stdin() if any(spec.path == "-" for spec in config.sources) else None
    found = [sources.find(spec, side, spooled) for spec, side in _named(config)]
    checked = passes.Checked.of(config, tasks)
    header, inputs = _header(config, model, checked), passes.inputs(found, checked)
    fresh = not out.exists()
    try:
        with open_run(out, stage="data", config=header, inputs=inputs, schema=SCHEMA, overwrite=overwrite) as run:
            if run.state == "done":
                say(f"data: already prepared in {out}")
                return out
            try:
                passes.build(config, found, run, model, checked)
            except TuneloopError:
                # A refusal must not keep the folder from the mended run.
                _empty(out)
                raise
    except TuneloopError:
        if fresh and out.is_dir() and not (out / "run.json").exists():
            shutil.rmtree(out)
        raise
    finally:
        if spooled is not None:
            spooled.unlink(missing_ok=True)
    return out


def _named(config: DataConfig) -> list[tuple[Any, str | None]]:
    frozen = [sources.frozen(config.frozen)] if config.frozen else []
    return [(spec, None) for spec in config.sources] + [(spec, "test") for spec in [*config.tests, *frozen]]


def _header(config: DataConfig, model: ModelConfig | None, checked: passes.Checked) -> dict[str, Any]:
    """The config, with what the counts of tokens and the check of overlaps depend on."""
    named = {"name": model.name, "revision": model.revision, "template": model.template} if model else None
    return {**config.model_dump(), "model": named, "checked_against": checked.names}


def _empty(out: Path) -> None:
    for name in (*SPLITS, "rejected", WORK):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("run.json", "profile.json"):
        (out / name).unlink(missing_ok=True)
