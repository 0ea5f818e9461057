"""What flows between stages: `Example` (one training item) and `Rejected` (one refused, with its reason)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from tuneloop.store import sha256_text, write_table

_dump = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps builds one at every call
SPLITS = ("train", "valid", "test")
KINDS = ("chat", "text", "completion", "classification", "preference", "feedback")
# Columns without a common Arrow type travel as JSON strings.
JSON_COLUMNS = {"source", "messages", "chosen", "rejected", "tools", "meta", "scores", "generator", "parents", "flags"}


@dataclass(slots=True)
class Example:
    """One training item: exactly one of `messages`, `text`, or `prompt` is set.

    chat, classification: `messages`, the last by the assistant. text: `text`. completion: `prompt` + `completion`.
    preference: what was asked (`messages` up to a user turn with `chosen` and `rejected` as lists of turns, or `prompt`
    with both as strings). feedback: as chat or completion, and `desirable` says whether the answer was a good one.
    """

    id: str = ""
    group: str = ""
    split: str = "train"
    kind: str = "chat"
    source: dict[str, Any] = field(default_factory=dict)  # uri, line, sha256, licence
    messages: list[dict[str, Any]] | None = None
    text: str | None = None
    prompt: str | None = None
    completion: str | None = None
    label: str | None = None
    chosen: list[dict[str, Any]] | str | None = None
    rejected: list[dict[str, Any]] | str | None = None
    desirable: bool | None = None
    tools: list[dict[str, Any]] | None = None
    meta: dict[str, Any] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    weight: float = 1.0
    parents: list[str] = field(default_factory=list)
    generator: dict[str, Any] | None = None  # model, template, seed, request hash, licence note
    flags: list[str] = field(default_factory=list)


EXAMPLE_COLUMNS = tuple(f.name for f in fields(Example))


@dataclass(slots=True)
class Rejected:
    """An example refused: why, which field, its value, what would mend it, and the raw row."""

    reason: str
    field: str = ""
    value: str = ""
    cure: str = ""
    uri: str = ""
    line: int = 0
    raw: str = ""
    stage: str = "data"


def example_id(example: Example) -> str:
    """Hash of the content alone, so that the same row has the same id wherever it stands."""
    content: list[Any] = [example.messages, example.text, example.prompt, example.completion]
    more = [example.chosen, example.rejected, example.desirable, example.tools]
    if any(value is not None for value in more):
        content += more
    return sha256_text(json.dumps(content, sort_keys=True, ensure_ascii=False))[:16]


def write_examples(folder: Path | str, split: str, examples: Iterable[Example]) -> Path:
    """Writes `folder/split/part-00000.parquet` and returns its path."""
    rows = [encode(example) for example in examples]
    return _write(Path(folder) / split / "part-00000.parquet", rows, example_schema())


def read_examples(folder: Path | str, split: str) -> list[Example]:
    """The examples of one split, in order; a split that was not written is empty."""
    return list(iter_examples(folder, split))


def iter_examples(folder: Path | str, split: str, batch: int = 1024) -> Iterator[Example]:
    """The same one after another: never more than `batch` of them in memory."""
    return (decode(row) for row in _rows(Path(folder) / split, batch))


def write_rejected(folder: Path | str, rejected: Iterable[Rejected]) -> Path:
    path = Path(folder) / "rejected" / "part-00000.parquet"
    return _write(path, [asdict(r) for r in rejected], rejected_schema())


def read_rejected(folder: Path | str) -> list[Rejected]:
    return list(iter_rejected(folder))


def iter_rejected(folder: Path | str) -> Iterator[Rejected]:
    return (Rejected(**row) for row in _rows(Path(folder) / "rejected", 1024))


def encode(example: Example) -> dict[str, Any]:
    """The columns of one example, as they stand in the Parquet files."""
    row: dict[str, Any] = {}
    for name in EXAMPLE_COLUMNS:
        value = getattr(example, name)
        if value is not None and name in JSON_COLUMNS:
            # Most of these are empty in most rows, and need no encoder then.
            value = _dump(value) if value else "{}" if isinstance(value, dict) else "[]"
        row[name] = value
    return row


def decode(row: dict[str, Any]) -> Example:
    return Example(
        **{
            name: json.loads(value) if name in JSON_COLUMNS and value is not None else value
            for name, value in row.items()
        }
    )


def example_schema() -> Any:
    return _schema(Example)


def rejected_schema() -> Any:
    return _schema(Rejected)


def _schema(kind: type) -> Any:
    import pyarrow as pa

    types = {"float": pa.float64(), "int": pa.int64(), "bool | None": pa.bool_()}
    return pa.schema([(f.name, types.get(str(f.type), pa.string())) for f in fields(kind)])


def _write(path: Path, rows: list[dict[str, Any]], schema: Any) -> Path:
    import pyarrow as pa

    write_table(path, pa.Table.from_pylist(rows, schema=schema))
    return path


def _rows(folder: Path, batch: int) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    for part in sorted(folder.glob("part-*.parquet")) if folder.is_dir() else []:
        with pq.ParquetFile(part) as file:
            for held in file.iter_batches(batch_size=batch):
                yield from held.to_pylist()
