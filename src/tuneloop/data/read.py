"""Files -> raw rows with their line numbers, one at a time. A bad line is a row with a problem, a bad file an error."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from tuneloop.data.jsonstream import JsonStream
from tuneloop.data.rows import TO_UTF8, Raw, Refused
from tuneloop.errors import DataError, UsageError

JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
TABLE_SUFFIXES = {".csv", ".tsv", ".parquet"}
TEXT_SUFFIXES = {".txt", ".md"}
SUFFIXES = JSON_SUFFIXES | TABLE_SUFFIXES | TEXT_SUFFIXES
BOM = b"\xef\xbb\xbf"


def kind(path: Path) -> str:
    """The suffix that decides how a file is read: the one before .gz."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def readable(path: Path) -> bool:
    return kind(path) in SUFFIXES and not path.name.lower().endswith(".parquet.gz")


def read(path: Path, *, whole: bool = False) -> Iterator[Raw]:
    """The rows of a file. `whole` makes one row of a plain text file instead of one a paragraph."""
    suffix = kind(path)
    if not readable(path):
        raise UsageError(
            130,
            f"cannot read '{suffix or path.name}' files",
            where=str(path),
            expected=", ".join(sorted(SUFFIXES)) + ", with .gz or without",
            cure="convert the file to JSON lines",
        )
    yield from _guarded(path, lambda p: _dispatch(p, suffix, whole))


def _dispatch(path: Path, suffix: str, whole: bool) -> Iterator[Raw]:
    if suffix == ".parquet":
        return _parquet(path)
    _check_head(path)
    if suffix in TEXT_SUFFIXES:
        return _document(path) if whole else _paragraphs(path)
    if suffix in TABLE_SUFFIXES:
        return _csv(path)
    return _json(path) if _is_one_value(path) else _lines(path)


def _guarded(path: Path, reader: Callable[[Path], Iterator[Raw]]) -> Iterator[Raw]:
    """Turns what a broken container raises into a coded error."""
    try:
        yield from reader(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(
            301, f"broken gzip file: {error}", where=str(path), cure="fetch or compress the file again"
        ) from error
    except OSError as error:
        raise UsageError(
            131, f"cannot read the file: {error.strerror or error}", where=str(path), cure="check the file's rights"
        ) from error


def open_binary(path: Path) -> IO[bytes]:
    if path.name.lower().endswith(".gz"):
        return cast(IO[bytes], gzip.open(path, "rb"))
    return open(path, "rb")


def _check_head(path: Path) -> None:
    """Refuses what is empty or plainly another encoding before any row is read."""
    with open_binary(path) as file:
        start = file.read(4096)
        rest = start.removeprefix(BOM)
        while start and not rest.strip() and (more := file.read(1 << 20)):
            rest = more
    if not rest.strip():
        raise DataError(302, "empty file", where=str(path), expected="at least one row", cure="check the export")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in start[:4]:
        raise DataError(
            303,
            "the file is UTF-16 or binary, not UTF-8",
            where=f"{path}:1 (byte 0)",
            expected="UTF-8",
            cure="save the file as UTF-8 (iconv -f utf-16 -t utf-8 FILE)",
        )


def _is_one_value(path: Path) -> bool:
    """True for one JSON value over the whole file; False for a value a line."""
    start = _first(path)
    if start.startswith(b"["):
        return True
    if kind(path) != ".json":
        return False
    try:
        value = json.loads(start)
    except (json.JSONDecodeError, UnicodeDecodeError):
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
    offset = 0
    with open_binary(path) as file:
        for number, data in enumerate(file, start=1):
            start, offset = offset, offset + len(data)
            if number == 1 and data.startswith(BOM):
                data, start = data[3:], 3
            if data.strip():
                yield _line(number, data.rstrip(b"\r\n"), start)


def _line(number: int, data: bytes, start: int) -> Raw:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        what = f"byte {data[error.start]:#04x} at byte {start + error.start}"
        refused = Refused("wrong_encoding", value=what, cure=TO_UTF8)
        return Raw(number, text=data.decode("utf-8", "surrogateescape"), problem=refused)
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        what = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else "nested too deep"
        return Raw(number, text=text, problem=Refused("broken_json", value=what, cure="mend or delete the line"))
    return _object(number, value, text)


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


def _decoded(path: Path) -> Iterator[str]:
    """Text lines; bytes that do not decode stay visible as lone surrogates, so that their row can be refused."""
    with open_binary(path) as file:
        for number, data in enumerate(file):
            yield (data.removeprefix(BOM) if number == 0 else data).decode("utf-8", "surrogateescape")


def _undecoded(text: str) -> Refused | None:
    for sign in "" if text.isascii() else text:
        if 0xDC80 <= ord(sign) <= 0xDCFF:
            return Refused("wrong_encoding", value=f"byte {ord(sign) - 0xDC00:#04x}", cure=TO_UTF8)
    return None


def _csv(path: Path) -> Iterator[Raw]:
    csv.field_size_limit(1 << 30)
    lines = _decoded(path)
    blank = list(itertools.takewhile(lambda line: not line.strip(), lines_peek := _peekable(lines)))
    first = lines_peek.last
    delimiter = max("\t,;|" if kind(path) == ".tsv" else ",;\t|", key=first.count)
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
    header = [name.strip() for name in next(reader)]
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise DataError(
            305,
            f"column '{repeated[0]}' stands twice in the header",
            where=f"{path}:{len(blank) + 1}",
            expected="each name once",
            cure="rename one of them",
        )
    line = reader.line_num
    try:
        for cells in reader:
            start, line = line + 1, reader.line_num
            if any(cell.strip() for cell in cells):
                yield _cells(start + len(blank), cells, header, delimiter)
    except csv.Error as error:
        raise DataError(306, f"broken CSV: {error}", where=f"{path}:{line + 1}", cure="mend that line") from error


class _peekable:
    """Remembers the last line handed out, which `takewhile` has already taken."""

    def __init__(self, lines: Iterator[str]) -> None:
        self.lines, self.last = lines, ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        self.last = next(self.lines)
        return self.last


def _cells(line: int, cells: list[str], header: list[str], delimiter: str) -> Raw:
    text = delimiter.join(cells)
    problem = _undecoded(text)
    if problem is None and len(cells) != len(header):
        value = f"{len(cells)} fields, header has {len(header)}"
        problem = Refused("wrong_columns", value=value, cure="quote fields that hold the delimiter or a line break")
    return Raw(line, row=dict(zip(header, cells, strict=False)), text=text, problem=problem)


def _parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            if file.metadata.num_rows == 0:
                raise DataError(302, "empty file", where=str(path), expected="at least one row")
            number = 0
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield Raw(number, row=row)
    except pa.ArrowException as error:
        what = str(error).splitlines()[0][:200]
        raise DataError(307, f"not a Parquet file: {what}", where=str(path), cure="write the file again") from error


def _paragraphs(path: Path) -> Iterator[Raw]:
    held: list[str] = []
    start = 1
    for number, line in enumerate(_decoded(path), start=1):
        if line.strip():
            start = start if held else number
            held.append(line)
        elif held:
            yield _text(start, "".join(held))
            held = []
    if held:
        yield _text(start, "".join(held))


def _document(path: Path) -> Iterator[Raw]:
    yield _text(1, "".join(_decoded(path)))


def _text(line: int, text: str) -> Raw:
    return Raw(line, row={"text": text}, text=text, problem=_undecoded(text))
