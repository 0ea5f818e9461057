"""The work on rows, as operations from table to table: the same in this process, in others, and on a cluster.

`convert` takes raw rows and gives a line a row, in order: an example with the keys that duplicates, groups, splits and
overlaps are found by, or the reason why there is none. It looks at nothing but its table.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tuneloop.config import DataConfig
from tuneloop.data import formats, length
from tuneloop.data.asked import asked_and_answered, core, everything
from tuneloop.data.clean import check_whole, clean
from tuneloop.data.filters import check
from tuneloop.data.read import parse_line
from tuneloop.data.rows import Raw, Refused, as_rejected, dump
from tuneloop.neighbours import minhash
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.records import KINDS, SPLITS, Example, Rejected, encode, example_id, example_schema
from tuneloop.text import collapse, decisive, key, normalise

REJECTED = ("reason", "field", "value", "cure", "raw")
RULES = ("", "8-gram coverage", "13-gram", "whole string")
# Unsigned numbers that stay in memory for every row, and what is read back once from the shard.
KEYS: dict[str, str] = {
    "id": "u8", "exact": "u8", "prompt": "u8", "near": "u8", "link": "u8", "line": "u4", "part": "u4", "score": "f4",
    "asked_chars": "u4", "answer_chars": "u4", "asked_tokens": "u4", "answer_tokens": "u4", "made": "i1", "extra": "u1",
    "hit": "i4", "hit_share": "f4", "hit_rule": "u1", "kind": "u1",
}  # fmt: skip


@dataclass(frozen=True)
class PartPlan:
    """How the rows of one file are read."""

    uri: str
    digest: str
    plan: formats.Plan
    side: str | None
    licence: str | None
    group: str | None
    lines: bool  # rows are lines of JSON, parsed by the operation itself


@dataclass
class Context:
    """What the operation needs beside its table; it travels once to every worker."""

    config: DataConfig
    parts: list[PartPlan]
    overlap: OverlapIndex | None = None
    model: tuple[str, str | None, str | None] | None = None  # name, revision, template
    _tokenizer: Any = field(default=None, repr=False)

    def tokenizer(self) -> Any:
        if self._tokenizer is None and self.model is not None:
            self._tokenizer = length.tokenizer(*self.model)
        return self._tokenizer

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_tokenizer": None}


def raw_schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        [
            ("shard", pa.int32()),
            ("part", pa.int32()),
            ("line", pa.int64()),
            ("start", pa.int64()),
            ("data", pa.binary()),
        ]
    )


def raw_table(shard: int, part: int, rows: list[tuple[int, int, bytes]]) -> Any:
    """`rows`: (line, byte where it starts, its bytes, or a pickled Raw)."""
    import pyarrow as pa

    count = len(rows)
    columns = [[shard] * count, [part] * count, [r[0] for r in rows], [r[1] for r in rows], [r[2] for r in rows]]
    return pa.Table.from_arrays(
        [pa.array(c, f.type) for c, f in zip(columns, raw_schema(), strict=True)], schema=raw_schema()
    )


def work_schema() -> Any:
    import pyarrow as pa

    numbers = {
        "u8": pa.uint64(),
        "u4": pa.uint32(),
        "u1": pa.uint8(),
        "i1": pa.int8(),
        "i4": pa.int32(),
        "f4": pa.float32(),
    }
    return pa.schema(
        [
            *example_schema(),
            *((f"r_{name}", pa.string()) for name in REJECTED),
            *((f"k_{name}", numbers[kind]) for name, kind in KEYS.items()),
            ("bands", pa.binary()),
            ("grams", pa.binary()),
            ("ancestors", pa.list_(pa.uint64())),
            ("format", pa.string()),
            ("cleaned", pa.string()),
            ("shard", pa.int32()),
        ]
    )


@dataclass
class _Line:
    """One line of the result while it is made."""

    raw: Raw
    example: Example | None = None
    refused: Rejected | None = None
    format: str = ""
    link: str = ""
    cleaned: dict[str, int] = field(default_factory=dict)
    tokens: tuple[int, int] = (0, 0)
    extra: bool = False


def convert(table: Any, context: Context) -> Any:
    """Raw rows -> one line a row (pieces of a row that was split are lines of their own, marked `extra`)."""
    if not len(table):
        return work_schema().empty_table().append_column("vocabulary", _once(b"", 1).slice(1))
    part = context.parts[table["part"][0].as_py()]
    lines = [
        _line(_parse(line, start, data, part.lines), part, context.config)
        for line, start, data in zip(*(table[name].to_pylist() for name in ("line", "start", "data")), strict=True)
    ]
    tokens: set[int] = set()
    if context.model is not None:
        lines = _fit(lines, part, context, tokens)
    out = _as_table(lines, table["shard"][0].as_py(), table["part"][0].as_py(), part, context.overlap)
    return out.append_column("vocabulary", _once(np.array(sorted(tokens), np.uint32).tobytes(), len(out)))


def _once(value: bytes, count: int) -> Any:
    """A column that holds something in its first row only."""
    import pyarrow as pa

    return pa.array([value, *[None] * (count - 1)], pa.binary())


def _parse(line: int, start: int, data: bytes, lines: bool) -> Raw:
    if lines:
        return parse_line(line, data, start)
    held: Raw = pickle.loads(data)  # written by this program into the pipe a moment ago
    return held


def _line(raw: Raw, part: PartPlan, config: DataConfig) -> _Line:
    line = _Line(raw)
    counts: Counter[str] = Counter()
    try:
        if raw.problem is not None:
            raise raw.problem
        example, line.format = formats.convert(raw.row, part.plan)
        clean(example, counts, config.clean)
        check_whole(example)
        check(example, config.filter)
        example.source = {"uri": part.uri, "line": raw.line, "sha256": part.digest, "licence": part.licence}
        if example.generator is not None:
            example.source["licence"] = example.generator.get("licence")
        example.id = example_id(example)
        beside = [example.meta, example.generator, part.licence, example.parents, example.scores, example.flags]
        if any(beside) or example.label:
            dump([*beside, example.label]).encode()
        value = raw.row.get(part.group) if part.group else None
        line.link = "" if value is None or value == "" else str(value)
        line.example = example
    except Refused as error:
        line.refused = as_rejected(error, part.uri, raw)
    except UnicodeEncodeError as error:
        value = f"U+{ord(error.object[error.start]):04X}"
        cure = "half of a surrogate pair is no character: write the text again"
        line.refused = as_rejected(Refused("wrong_encoding", value=value, cure=cure), part.uri, raw)
    line.cleaned = {name: n for name, n in counts.items() if n}
    return line


def _fit(lines: list[_Line], part: PartPlan, context: Context, tokens: set[int]) -> list[_Line]:
    """Token counts for every example, and the policy for those that are too long."""
    held = [line for line in lines if line.example is not None]
    examples = [line.example for line in held if line.example]
    fitted = length.fit(examples, context.tokenizer(), context.config.max_length, context.config.over_long, tokens)
    by_line = dict(zip(map(id, held), fitted, strict=True))
    out = []
    for line in lines:
        found = by_line.get(id(line))
        if found is None:
            out.append(line)
        elif isinstance(found, Refused):
            out.append(_Line(line.raw, refused=as_rejected(found, part.uri, line.raw), cleaned=line.cleaned))
        else:
            for number, (example, asked, answer) in enumerate(found):
                piece = _Line(line.raw, example, None, line.format, line.link, line.cleaned if not number else {})
                piece.tokens, piece.extra = (asked, answer), number > 0
                if len(found) > 1:
                    piece.link = line.link or f"pieces of {found[0][0].parents}"
                out.append(piece)
    return out


def _number(text: str) -> int:
    return int(key(text)[:16], 16)


def _as_table(lines: list[_Line], shard: int, number: int, part: PartPlan, overlap: OverlapIndex | None) -> Any:
    import pyarrow as pa

    schema = work_schema()
    blank = dict.fromkeys(schema.names)
    asked = [asked_and_answered(line.example) if line.example else ("", "") for line in lines]
    cores = [
        normalise(core(line.example, a)) if line.example else "" for line, (a, _) in zip(lines, asked, strict=True)
    ]
    rows = []
    for line, (question, answer), text in zip(lines, asked, cores, strict=True):
        row: dict[str, Any] = {
            **blank,
            "shard": shard,
            "format": line.format,
            "cleaned": json.dumps(line.cleaned) if line.cleaned else None,
        }
        if line.example is not None:
            row.update(encode(line.example))
        row.update({f"r_{name}": getattr(line.refused, name) for name in REJECTED} if line.refused else {})
        row.update({f"k_{name}": value for name, value in _keys(line, question, answer, text, part).items()})
        row["k_part"] = number
        row["ancestors"] = _ancestors(line.example)
        rows.append(row)
    kept = [i for i, line in enumerate(lines) if line.example is not None]
    _add_grams(rows, kept, cores)
    if overlap is not None:
        _add_hits(rows, kept, lines, asked, cores, overlap)
    return pa.Table.from_pylist(rows, schema=schema)


def _ancestors(example: Example | None) -> list[int] | None:
    """Parents as numbers; an id that is none of ours cannot be found and is hashed."""
    if example is None or not example.parents:
        return None
    return [
        int(p, 16) if len(p) == 16 and all(c in "0123456789abcdef" for c in p) else _number(p) for p in example.parents
    ]


def _keys(line: _Line, asked: str, answer: str, text: str, part: PartPlan) -> dict[str, Any]:
    example = line.example
    zero: dict[str, Any] = {
        **dict.fromkeys(KEYS, 0),
        "hit": -1,
        "made": -1,
        "line": line.raw.line,
        "extra": int(line.extra),
    }
    if example is None:
        return zero
    mark = f"{example.label}\0{example.desirable}\0{example.kind}\0{json.dumps(example.tools) if example.tools else ''}"
    same = collapse(answer)
    system = "\0".join(str(m["content"]) for m in example.messages or [] if m["role"] in ("system", "developer"))
    made_in = (example.generator or {}).get("split")
    return {
        **zero,
        "id": int(example.id, 16),
        "exact": _number(f"{collapse(asked)}\0{same}\0{mark}"),
        "prompt": _number(normalise(asked)),
        # Equal where two prompts ask for the same: number by number, no by no, and are answered the same.
        "near": _number(f"{decisive(text)}\0{same}\0{mark}\0{system}"),
        "link": _number("column\0" + line.link) if line.link else 0,
        "score": float(np.mean(list(example.scores.values()))) if example.scores else 0.0,
        "asked_chars": len(asked),
        "answer_chars": len(answer),
        "asked_tokens": line.tokens[0],
        "answer_tokens": line.tokens[1],
        "made": (SPLITS.index(made_in) if made_in in SPLITS else -1) if example.generator is not None else -2,
        "kind": KINDS.index(example.kind),
    }


def _add_grams(rows: list[dict[str, Any]], kept: list[int], cores: list[str]) -> None:
    values, offsets = minhash.shingles([cores[i] for i in kept])
    keys = minhash.bands(values, offsets)
    for place, index in enumerate(kept):
        rows[index]["grams"] = values[offsets[place] : offsets[place + 1]].tobytes()
        rows[index]["bands"] = keys[place].tobytes()


def _add_hits(
    rows: list[dict[str, Any]],
    kept: list[int],
    lines: list[_Line],
    asked: list[tuple[str, str]],
    cores: list[str],
    overlap: OverlapIndex,
) -> None:
    texts = [everything(example, *asked[i]) for i in kept if (example := lines[i].example)]
    for found in overlap.search(texts, [cores[i] for i in kept]):
        row = rows[kept[found.text]]
        row["k_hit"], row["k_hit_share"], row["k_hit_rule"] = found.item, found.share, RULES.index(found.rule)


Op = Callable[[Any], Any]
