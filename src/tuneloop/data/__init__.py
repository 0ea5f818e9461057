"""Stage: rows of any common format -> a data folder with train, valid, test, rejected and a profile."""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuneloop.config import DataConfig
from tuneloop.console import say, warn
from tuneloop.data import formats, read, split
from tuneloop.data.clean import clean
from tuneloop.data.profile import profile
from tuneloop.data.rows import Raw, Refused, as_rejected, describe
from tuneloop.data.sources import Part, hub_rows, locate, parts
from tuneloop.errors import DataError, TuneloopError, UsageError
from tuneloop.records import SPLITS, Example, Rejected, example_id, write_examples, write_rejected
from tuneloop.store import input_hash, open_run, write_json

SAMPLE = 200
SHOWN = 5

__all__ = ["prepare"]


@dataclass
class _Gathered:
    """Rows that could be read, side by side with the hint, the group value and the raw row of each."""

    rows: list[Example] = field(default_factory=list)
    hints: list[str | None] = field(default_factory=list)
    groups: list[str | None] = field(default_factory=list)
    rejected: list[Rejected] = field(default_factory=list)
    sources: list[dict[str, Any]] = field(default_factory=list)
    cleaned: Counter[str] = field(default_factory=Counter)

    def drop(self, refused: list[tuple[int, Refused]]) -> None:
        gone = {index for index, _ in refused}
        for index, error in refused:
            row = self.rows[index]
            raw = Raw(int(row.source["line"]), row={"prompt": split.prompt_and_answer(row)[0]})
            raw.row["answer"] = split.prompt_and_answer(row)[1]
            self.rejected.append(as_rejected(error, str(row.source["uri"]), raw))
        keep = [index for index in range(len(self.rows)) if index not in gone]
        self.rows = [self.rows[i] for i in keep]
        self.hints = [self.hints[i] for i in keep]
        self.groups = [self.groups[i] for i in keep]


def prepare(config: DataConfig, out: Path, *, overwrite: bool = False) -> Path:
    """Reads, checks, cleans, deduplicates and splits the rows of `config.source` (and `config.test`) into `out`.

    Raises UsageError for what cannot be found, DataError for a file that cannot be read or when no row is left.
    Rows that cannot be used stand in `out/rejected` with the reason; rows in = kept + rejected.
    """
    out = Path(out)
    named = [(name, None) for name in config.source] + [(name, "test") for name in config.test]
    if not config.source:
        raise UsageError(136, "no data", where="data.source", expected="files, folders or hub names")
    formats.named_format(config.format, config.columns)
    found = [(name, locate(name), side) for name, side in named]
    inputs = {f"{side or 'source'}-{i}": path or name for i, (name, path, side) in enumerate(found)}
    fresh = not out.exists()
    try:
        with open_run(out, stage="data", config=config.model_dump(), inputs=inputs, overwrite=overwrite) as run:
            if run.state == "done":
                say(f"data: already prepared in {out}")
                return out
            try:
                _build(config, found, run)
            except TuneloopError:
                # A refusal must not keep the folder from the mended run.
                _empty(out)
                raise
    except TuneloopError:
        if fresh and out.is_dir() and not (out / "run.json").exists():
            shutil.rmtree(out)
        raise
    return out


def _empty(out: Path) -> None:
    for name in (*SPLITS, "rejected"):
        shutil.rmtree(out / name, ignore_errors=True)
    for name in ("run.json", "profile.json"):
        (out / name).unlink(missing_ok=True)


def _build(config: DataConfig, found: list[tuple[str, Path | None, str | None]], run: Any) -> None:
    held = _Gathered()
    for name, path, side in found:
        for part in parts(name, path):
            _read_part(config, part, side, held)
    _check_kept(held)
    rows_in = sum(source["rows_in"] for source in held.sources)
    if config.deduplicate:
        held.drop(split.deduplicate(held.rows, held.hints)[1])
    split.assign_groups(held.rows, held.groups)
    held.drop(
        split.assign_splits(
            held.rows, held.hints, test=config.test_fraction, valid=config.valid_fraction, seed=config.seed
        )
    )
    _check_kept(held)
    if rows_in != len(held.rows) + len(held.rejected):
        raise AssertionError(f"{rows_in} rows in, {len(held.rows)} kept, {len(held.rejected)} rejected")
    found_profile = profile(held.rows, held.rejected, held.sources, held.cleaned)
    for side in SPLITS:
        write_examples(run.path, side, [row for row in held.rows if row.split == side])
    write_rejected(run.path, held.rejected)
    write_json(run.path / "profile.json", found_profile)
    run.finish(counts={name: found_profile[name] for name in ("rows_in", "kept", "rejected", "splits", "reasons")})
    _tell(found_profile, held)


def _read_part(config: DataConfig, part: Part, side: str | None, held: _Gathered) -> None:
    """Reads one file into `held`, with its counts."""
    whole = config.format == "document"
    stream: Iterator[Raw] = hub_rows(part) if part.path is None else read.read(part.path, whole=whole)
    stream = itertools.islice(stream, config.limit)
    sample = list(itertools.islice(stream, SAMPLE))
    forced = formats.named_format(config.format, config.columns)
    plan = formats.plan([raw.row for raw in sample if raw.problem is None], forced, config.columns, part.uri)
    _check_group(config.group, sample, part)
    digest = input_hash(part.path) if part.path else input_hash(part.uri)
    seen: Counter[str] = Counter()
    count = 0
    for raw in itertools.chain(sample, stream):
        count += 1
        try:
            if raw.problem is not None:
                raise raw.problem
            example, name = formats.convert(raw.row, plan)
            clean(example, held.cleaned)
        except Refused as error:
            held.rejected.append(as_rejected(error, part.uri, raw))
            continue
        seen[name] += 1
        example.source = {"uri": part.uri, "line": raw.line, "sha256": digest, "licence": None}
        if example.generator is not None:
            example.source["licence"] = example.generator.get("licence")
        example.id = example_id(example)
        held.rows.append(example)
        held.hints.append(side or part.split)
        value = raw.row.get(config.group) if config.group else None
        held.groups.append(None if value is None or value == "" else str(value))
    source = {"uri": part.uri, "rows_in": count, "formats": dict(seen), "split": side or part.split, "sha256": digest}
    held.sources.append(source)
    _announce(part, plan, sample, seen, count)


def _check_group(column: str | None, sample: list[Raw], part: Part) -> None:
    names = {str(name) for raw in sample for name in raw.row}
    if column and names and column not in names:
        from tuneloop.errors import nearest

        raise UsageError(
            134, f"no column '{column}'", where=f"{part.uri} (data.group)", expected=nearest(column, names)
        )


def _announce(part: Part, plan: formats.Plan, sample: list[Raw], seen: Counter[str], count: int) -> None:
    """Says aloud which format was found and which column became what."""
    mapping = {}
    for raw in sample:
        if raw.problem is None and plan.main:
            mapping = formats.FORMATS[plan.main].columns(raw.row, plan.columns) or {}
            if mapping:
                break
    columns = ", ".join(f"{field} <- {column}" for field, column in mapping.items())
    how = "as named" if plan.forced else "detected"
    hint = f", split {part.split}" if part.split else ""
    say(f"{part.uri}: {count:,} rows, {plan.main or 'no known format'} ({how}; {columns or 'no columns'}){hint}")
    if len(seen) > 1:
        mixed = ", ".join(f"{n:,} {name}" for name, n in seen.most_common())
        warn(f"{part.uri} mixes formats: {mixed}; each row was read by its own (fix one with data.format)")


def _check_kept(held: _Gathered) -> None:
    if any(row.split == "train" for row in held.rows):
        return
    ranked = Counter(r.reason for r in held.rejected).most_common()
    listed = ", ".join(f"{n:,} {reason}" for reason, n in ranked) or "no rows were rejected"
    first = f"; first: {describe(held.rejected[0])}" if held.rejected else ""
    total = sum(source["rows_in"] for source in held.sources)
    what = "no training rows are left" if held.rows else "no row could be kept"
    raise DataError(
        309,
        f"{what} of {total:,}: {listed}",
        where=", ".join(source["uri"] for source in held.sources)[:300],
        expected="rows of one of: " + ", ".join(formats.NAMES),
        cure=f"name the columns (--set data.columns.question=... data.columns.answer=...){first}",
    )


def _tell(found: dict[str, Any], held: _Gathered) -> None:
    own = [r for r in held.rejected if r.reason not in ("duplicate", "in_test", "in_valid")]
    for rejected in own[:SHOWN]:
        warn(describe(rejected))
    if len(own) > SHOWN:
        warn(f"... and {len(own) - SHOWN:,} more, all in rejected/")
    sides = ", ".join(f"{name} {n:,}" for name, n in found["splits"].items())
    say(f"data: {found['rows_in']:,} rows in = {found['kept']:,} kept ({sides}) + {found['rejected']:,} rejected")
    for reason, n in found["reasons"].items():
        say(f"  rejected {n:,}: {reason}")
    changed = {name: n for name, n in found["cleaned"].items() if n and name != "rows_changed"}
    if changed:
        say("  cleaned: " + ", ".join(f"{n:,} {name}" for name, n in changed.items()))
    for side in ("valid", "test"):
        if not found["splits"][side]:
            warn(f"the {side} split is empty")
