"""Sources -> plans of how to read each file, and the stream of raw tables that the operations work on."""

from __future__ import annotations

import itertools
import pickle
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tuneloop.config import DataConfig
from tuneloop.config.data import SourceSpec
from tuneloop.console import say, warn
from tuneloop.data import formats, read
from tuneloop.data.ops import PartPlan, raw_table
from tuneloop.data.rows import Raw, Refused
from tuneloop.data.sources import Part, hub_rows
from tuneloop.errors import UsageError, nearest
from tuneloop.store import input_hash

SAMPLE = 200
SHARD_ROWS, SHARD_BYTES = 2048, 4 << 20


@dataclass(frozen=True)
class Planned:
    """A file with its plan and the number of its source."""

    part: Part
    plan: PartPlan
    source: int
    whole: bool


def plan_part(part: Part, number: int, spec: SourceSpec, side: str | None, config: DataConfig) -> Planned:
    """Looks at the first rows, says what was found, and gives the plan for all."""
    name = spec.format or config.format
    columns = config.columns if spec.columns is None else spec.columns
    group = spec.group or config.group
    whole = name == "document"
    sample = list(itertools.islice(raws(part, whole), min(SAMPLE, config.limit or SAMPLE)))
    forced = formats.named_format(name, columns)
    plan = formats.plan([raw.row for raw in sample if raw.problem is None], forced, columns, part.uri)
    _check_group(group, sample, part)
    digest = input_hash(part.path) if part.path else input_hash(part.uri)
    _announce(part, plan, sample)
    lines = part.path is not None and read.is_lines(part.path)
    found = PartPlan(part.uri, digest, plan, side or part.split, spec.licence, group, lines)
    return Planned(part, found, number, whole)


def raws(part: Part, whole: bool) -> Iterator[Raw]:
    return hub_rows(part) if part.path is None else read.read(part.path, whole=whole)


def _check_group(column: str | None, sample: list[Raw], part: Part) -> None:
    names = {str(name) for raw in sample for name in raw.row}
    if column and names and column not in names:
        raise UsageError(
            134, f"no column '{column}'", where=f"{part.uri} (data.group)", expected=nearest(column, names)
        )


def _announce(part: Part, plan: formats.Plan, sample: list[Raw]) -> None:
    """Says aloud which format was found and which column became what."""
    mapping = {}
    for raw in sample:
        if raw.problem is None and plan.main:
            mapping = formats.FORMATS[plan.main].columns(raw.row, plan.columns) or {}
            if mapping:
                break
    columns = ", ".join(f"{field} <- {column}" for field, column in mapping.items())
    how = "as named" if plan.forced else f"found in the first {len(sample)} rows"
    hint = f", split {part.split}" if part.split else ""
    say(f"{part.uri}: {plan.main or 'no known format'} ({how}; {columns or 'no columns'}){hint}")


def tell_mixed(uri: str, seen: Counter[str]) -> None:
    if len(seen) > 1:
        mixed = ", ".join(f"{n:,} {name}" for name, n in seen.most_common())
        warn(f"{uri} mixes formats: {mixed}; each row was read by its own (fix one with data.format)")


def raw_tables(planned: list[Planned], limit: int | None, done: set[int]) -> Iterator[Any]:
    """Tables of raw rows, numbered from 0; the numbers in `done` are counted but not made."""
    shard = 0
    for number, one in enumerate(planned):
        for rows in _shards(itertools.islice(_packed(one), limit)):
            if shard not in done:
                yield raw_table(shard, number, rows)
            shard += 1


def _shards(rows: Iterator[tuple[int, int, bytes]]) -> Iterator[list[tuple[int, int, bytes]]]:
    held: list[tuple[int, int, bytes]] = []
    size = 0
    for row in rows:
        held.append(row)
        size += len(row[2])
        if len(held) >= SHARD_ROWS or size >= SHARD_BYTES:
            yield held
            held, size = [], 0
    if held:
        yield held


def _packed(one: Planned) -> Iterator[tuple[int, int, bytes]]:
    """Lines of JSON as they stand, for the operation to parse; other rows as they were read."""
    if one.plan.lines and one.part.path is not None:
        for number, data, start in read.guarded_lines(one.part.path):
            yield number, start, data
        return
    for raw in raws(one.part, one.whole):
        try:
            yield raw.line, 0, pickle.dumps(raw, protocol=5)
        except RecursionError:
            deep = Refused("broken_json", value="nested too deep", cure="flatten the row")
            yield raw.line, 0, pickle.dumps(Raw(raw.line, problem=deep), protocol=5)
