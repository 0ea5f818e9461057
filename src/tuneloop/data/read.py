"""Files -> raw rows with their line numbers, one at a time. A bad line is a row with a problem, a bad file an error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.data.containers import (
    BINARY_SUFFIXES,
    BOM,
    SUFFIXES,
    TABLE_SUFFIXES,
    TEXT_SUFFIXES,
    check_head,
    guarded,
    kind,
    open_binary,
    readable,
    text_lines,
    undecoded,
)
from tuneloop.data.jsonstream import JsonStream
from tuneloop.data.rows import TO_UTF8, Raw, Refused
from tuneloop.data.tables import read_arrow, read_csv, read_parquet
from tuneloop.errors import UsageError


def read(path: Path, *, whole: bool = False) -> Iterator[Raw]:
    """The rows of a file. `whole` makes one row of a plain text file instead of one a paragraph."""
    suffix = kind(path)
    if not readable(path):
        raise UsageError(
            130,
            f"cannot read '{suffix or path.name}' files",
            where=str(path),
            expected=", ".join(sorted(SUFFIXES)) + ", or packed as .gz or .zst",
            cure="convert the file to JSON lines",
        )
    yield from guarded(path, lambda p: _dispatch(p, suffix, whole))


def is_lines(path: Path) -> bool:
    """Whether a file holds a JSON value a line, so that its lines can be parsed anywhere."""
    return kind(path) in (".json", ".jsonl", ".ndjson") and not _is_one_value(path)


def _dispatch(path: Path, suffix: str, whole: bool) -> Iterator[Raw]:
    if suffix in BINARY_SUFFIXES:
        return read_parquet(path) if suffix == ".parquet" else read_arrow(path)
    check_head(path)
    if suffix in TEXT_SUFFIXES:
        return _document(path) if whole else _paragraphs(path)
    if suffix in TABLE_SUFFIXES:
        return read_csv(path)
    return _json(path) if _is_one_value(path) else _lines(path)


def _is_one_value(path: Path) -> bool:
    """True for one JSON value over the whole file; False for a value a line."""
    start = _first(path)
    if start.startswith(b"["):
        return True
    if kind(path) != ".json":
        return False
    try:
        value = json.loads(start)
    except (ValueError, RecursionError):
        # An object over several lines is no JSON lines; a whole line that is broken is.
        return not start.endswith(b"}")
    return isinstance(value, dict) and any(_is_rows(name, held) for name, held in value.items())


def _is_rows(name: str, held: object) -> bool:
    turns = name.lower() in ("messages", "conversations", "conversation", "choices", "prompt", "completion")
    return not turns and isinstance(held, list) and bool(held) and isinstance(held[0], dict)


def _first(path: Path) -> bytes:
    with open_binary(path) as file:
        for line in file:
            if line.removeprefix(BOM).strip():
                return line.removeprefix(BOM).strip()
    return b""


def _lines(path: Path) -> Iterator[Raw]:
    return (parse_line(*held) for held in json_lines(path))


def guarded_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """`json_lines`, with a broken container told as `read` tells it."""
    check_head(path)
    return guarded(path, json_lines)


def json_lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """(number, bytes, byte where they start) of every line that is not blank."""
    offset = 0
    with open_binary(path) as file:
        for number, data in enumerate(file, start=1):
            start, offset = offset, offset + len(data)
            if number == 1 and data.startswith(BOM):
                data, start = data[3:], 3
            if data.strip():
                yield number, data.rstrip(b"\r\n"), start


def parse_line(number: int, data: bytes, start: int) -> Raw:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"byte {data[error.start]:#04x} at byte {start + error.start}"
        refused = Refused("wrong_encoding", value=what, cure=TO_UTF8)
        return Raw(number, text=data.decode("utf-8", "surrogateescape"), problem=refused)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else _unread(error)
        return Raw(number, text=text, problem=Refused("broken_json", value=what, cure="mend or delete the line"))
    return _object(number, value, text)


def _unread(error: Exception) -> str:
    """Of JSON that is well formed: Python reads neither deep nests nor whole numbers of thousands of digits."""
    return "nested too deep" if isinstance(error, RecursionError) else "a number of too many digits"


def _object(number: int, value: Any, text: str = "") -> Raw:
    if isinstance(value, dict):
        return Raw(number, row=value, text=text)
    refused = Refused("not_an_object", value=value, cure='write each row as {"field": value, ...}')
    return Raw(number, text=text or json.dumps(value, ensure_ascii=False), problem=refused)


def _json(path: Path) -> Iterator[Raw]:
    """One array (streamed), one object that holds the rows under a single key, or objects over several lines."""
    with open_binary(path) as file:
        stream = JsonStream(path, file)
        if stream.peek() == "[":
            for line, value in stream.array():
                yield _object(line, value)
            return
        while stream.peek():
            line, value = stream.value()
            held = [v for name, v in value.items() if _is_rows(name, v)] if isinstance(value, dict) else []
            if len(held) == 1:
                yield from (_object(number, row) for number, row in enumerate(held[0], start=1))
            else:
                yield _object(line, value)


def _paragraphs(path: Path) -> Iterator[Raw]:
    held: list[str] = []
    start = 1
    for number, line in enumerate(text_lines(path), start=1):
        if line.strip():
            start = start if held else number
            held.append(line)
        elif held:
            yield _text(start, "".join(held))
            held = []
    if held:
        yield _text(start, "".join(held))


def _document(path: Path) -> Iterator[Raw]:
    yield _text(1, "".join(text_lines(path)))


def _text(line: int, text: str) -> Raw:
    return Raw(line, row={"text": text}, text=text, problem=undecoded(text))
