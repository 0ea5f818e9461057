"""The second pass: from shards and decisions to the folder. Columns are filtered as columns, text stays untouched."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.asked import asked_and_answered
from tuneloop.data.duplicates import CODES, Decisions
from tuneloop.data.groups import Groups
from tuneloop.data.keys import Keys, read_shard
from tuneloop.data.ops import REJECTED, RULES
from tuneloop.data.rows import RAW_LIMIT, dump, printable
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.records import EXAMPLE_COLUMNS, SPLITS, Rejected, decode, example_schema, rejected_schema
from tuneloop.store import sha256_text
from tuneloop.text import shorten

PART_ROWS = 50_000
GROUP_ROWS = 10_000


class PartWriter:
    """`folder/part-00000.parquet` and so on, each under a temporary name until it is whole."""

    def __init__(self, folder: Path, schema: Any) -> None:
        self.folder, self.schema = folder, schema
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("part-*.parquet"):
            old.unlink()
        self.held: list[Any] = []
        self.waiting = self.in_part = self.number = self.total = 0
        self.writer: Any = None

    def add(self, table: Any) -> None:
        while len(table):
            room = min(GROUP_ROWS - self.waiting, PART_ROWS - self.in_part - self.waiting)
            piece, table = table.slice(0, room), table.slice(room)
            self.held.append(piece)
            self.waiting += len(piece)
            if self.waiting == GROUP_ROWS or self.in_part + self.waiting == PART_ROWS:
                self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        if self.writer is None:
            self.writer = pq.ParquetWriter(self._temporary(), self.schema, compression="zstd")
        self.writer.write_table(pa.concat_tables(self.held) if self.held else self.schema.empty_table())
        self.in_part += self.waiting
        self.total += self.waiting
        self.held, self.waiting = [], 0
        if self.in_part >= PART_ROWS:
            self._close()

    def _temporary(self) -> Path:
        return self.folder / f".part-{self.number:05d}.parquet.tmp"

    def _close(self) -> None:
        self.writer.close()
        self._temporary().rename(self.folder / f"part-{self.number:05d}.parquet")
        self.writer, self.in_part = None, 0
        self.number += 1

    def close(self) -> None:
        """Writes what is left; a split without rows has one empty file."""
        if self.waiting or not self.number:
            self._flush()
        if self.writer is not None:
            self._close()


def write(
    out: Path,
    keys: Keys,
    groups: Groups,
    decided: Decisions,
    times: NDArray[np.uint8],
    index: OverlapIndex | None,
    look: Callable[[Any, slice], None],
) -> dict[str, PartWriter]:
    """All rows of all shards into `out`; `look(table of kept rows, rows of the shard)` sees them on the way."""
    writers = {name: PartWriter(out / name, example_schema()) for name in SPLITS}
    writers["rejected"] = PartWriter(out / "rejected", rejected_schema())
    starts = keys.starts()
    for path, start, stop in zip(keys.shards, starts[:-1], starts[1:], strict=True):
        table = read_shard(path, [*EXAMPLE_COLUMNS, *(f"r_{name}" for name in REJECTED)])
        span = slice(start, stop)
        filled = _filled(table.select(list(EXAMPLE_COLUMNS)), groups, decided, span)
        kept = keys.ok[span] & (decided.code[span] == 0)
        split = groups.split[span]
        for number, name in enumerate(SPLITS):
            rows = np.flatnonzero(kept & (split == number))
            writers[name].add(_repeated(filled, rows, times[span]))
        writers["rejected"].add(_rejected(table, keys, decided, index, span))
        look(filled.filter(kept), span)
    for writer in writers.values():
        writer.close()
    return writers


def _filled(table: Any, groups: Groups, decided: Decisions, span: slice) -> Any:
    """With group, split and the flags of test rows that repeat another."""
    import pyarrow as pa

    names = pa.array(SPLITS)
    group = pa.array([f"{value:016x}" for value in groups.group[span].tolist()])
    split = names.take(pa.array(np.minimum(groups.split[span], len(SPLITS) - 1).astype(np.int32)))
    for name, column in (("group", group), ("split", split)):
        table = table.set_column(table.schema.get_field_index(name), name, column)
    marked = [row - span.start for row in decided.marked if span.start <= row < span.stop]
    contaminated = set(np.flatnonzero(groups.flagged[span]).tolist())
    if marked or contaminated:
        flags = table["flags"].to_pylist()
        for row in marked:
            flags[row] = json.dumps([*json.loads(flags[row] or "[]"), "duplicate"])
        for row in contaminated:
            flags[row] = json.dumps([*json.loads(flags[row] or "[]"), "contaminated"])
        table = table.set_column(table.schema.get_field_index("flags"), "flags", pa.array(flags, pa.string()))
    return table.cast(example_schema())


def _repeated(table: Any, rows: NDArray[np.int64], times: NDArray[np.uint8]) -> Any:
    """The rows, each as often as it is laid down; a repeat has an id of its own and names the row it repeats."""
    import pyarrow as pa

    often = times[rows]
    if not (often > 1).any():
        return table.take(pa.array(rows))
    taken = table.take(pa.array(np.repeat(rows, often)))
    turn = np.concatenate([np.arange(n) for n in often]) if len(often) else np.zeros(0, np.int64)
    columns = {name: taken[name].to_pylist() for name in ("id", "parents", "flags")}
    for place in np.flatnonzero(turn).tolist():
        original = columns["id"][place]
        columns["id"][place] = sha256_text(f"{original} {turn[place]}")[:16]
        columns["parents"][place] = json.dumps([original])
        columns["flags"][place] = json.dumps([*json.loads(columns["flags"][place] or "[]"), f"epoch {turn[place] + 1}"])
    for name, values in columns.items():
        taken = taken.set_column(taken.schema.get_field_index(name), name, pa.array(values, pa.string()))
    return taken


CURES = {
    "near_duplicate": "none needed; data.near_duplicates=false keeps it",
    "other_answer": "none needed; data.one_answer_per_prompt=false keeps it",
    "contaminated": "none needed: training on it would spoil the score; data.decontaminate=[] keeps it",
    "bridges_splits": "none needed: it would join groups of two splits",
    "not_sampled": "none needed; raise the cap or weight of its source",
}


def _rejected(table: Any, keys: Keys, decided: Decisions, index: OverlapIndex | None, span: slice) -> Any:
    """Rows refused while they were read, and those that the decisions leave out, in order."""
    import pyarrow as pa

    gone = np.flatnonzero(~keys.ok[span] | (decided.code[span] > 0))
    if not len(gone):
        return rejected_schema().empty_table()
    rows = []
    for local, row in zip(gone.tolist(), table.take(pa.array(gone)).to_pylist(), strict=True):
        at = span.start + local
        line = int(keys["line"][at])
        if not keys.ok[at]:
            held = {name: row[f"r_{name}"] or "" for name in REJECTED}
            rows.append(asdict(Rejected(**held, uri=keys.uris[keys["part"][at]], line=line)))
            continue
        example = decode({name: row[name] for name in EXAMPLE_COLUMNS})
        asked, answer = asked_and_answered(example)
        field, value = _why(keys, decided, index, at)
        reason = CODES[decided.code[at]]
        raw = printable(dump({"prompt": asked, "answer": answer}))[:RAW_LIMIT]
        cure = CURES.get(reason, "none needed")
        rows.append(asdict(Rejected(reason, field, value, cure, str(example.source["uri"]), line, raw)))
    return pa.Table.from_pylist(rows, schema=rejected_schema())


def _why(keys: Keys, decided: Decisions, index: OverlapIndex | None, row: int) -> tuple[str, str]:
    """(field, value): the row it goes for, and how near it is."""
    reason, other = CODES[decided.code[row]], int(decided.other[row])
    named = f"{int(keys['id'][other]):016x}" if other >= 0 else ""
    if reason == "contaminated" and index is not None:
        item = int(keys["hit"][row])
        rule, share = RULES[keys["hit_rule"][row]], float(keys["hit_share"][row])
        return "messages", f"{index.names[item]} {rule} {share:.2f}: {shorten(index.texts[item], 140)}"
    if reason == "near_duplicate":
        return "id", f"{named} similarity {decided.value[row]:.3f}"
    if reason == "not_sampled":
        return "source", f"{decided.value[row]:.3f} of its rows are taken"
    return ("group" if reason in ("in_test", "in_valid", "bridges_splits") else "id"), named


def row_texts(keys: Keys, rows: list[int]) -> dict[int, tuple[str, str, str]]:
    """row -> (id, prompt, answer) of a few rows, for the profile."""
    starts = np.array(keys.starts())
    found = {}
    by_shard: dict[int, list[int]] = {}
    for row in rows:
        by_shard.setdefault(int(np.searchsorted(starts, row, "right")) - 1, []).append(row)
    for shard, held in by_shard.items():
        table = read_shard(keys.shards[shard], list(EXAMPLE_COLUMNS))
        for row in held:
            example = decode(table.slice(row - int(starts[shard]), 1).to_pylist()[0])
            found[row] = (example.id, *asked_and_answered(example))
    return found


def counts(codes: NDArray[np.uint8], ok: NDArray[np.bool_]) -> Counter[str]:
    return Counter({CODES[i]: int(n) for i, n in enumerate(np.bincount(codes[ok], minlength=len(CODES))) if i and n})
