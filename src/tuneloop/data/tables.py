"""Tables -> raw rows: CSV and TSV with the lines they stand on, Parquet and Arrow batch by batch."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.data.containers import kind, text_lines, undecoded
from tuneloop.data.rows import Raw, Refused
from tuneloop.errors import DataError

BATCH = 1024


def read_csv(path: Path) -> Iterator[Raw]:
    csv.field_size_limit(1 << 30)
    lines = text_lines(path)
    blank = list(itertools.takewhile(lambda line: not line.strip(), lines_peek := _peekable(lines)))
    first = lines_peek.last
    delimiter = max("\t,;|" if kind(path) == ".tsv" else ",;\t|", key=first.count)
    reader = csv.reader(itertools.chain([first], lines), delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader)]
    except csv.Error as error:
        raise _broken(path, len(blank) + 1, error) from error
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
        raise _broken(path, line + 1, error) from error


def _broken(path: Path, line: int, error: csv.Error) -> DataError:
    what = str(error).split(" - ")[0]
    return DataError(
        306, f"broken CSV: {what}", where=f"{path}:{line}", cure="mend that line; line ends are \\n or \\r\\n"
    )


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
    problem = undecoded(text)
    if problem is None and len(cells) != len(header):
        value = f"{len(cells)} fields, header has {len(header)}"
        problem = Refused("wrong_columns", value=value, cure="quote fields that hold the delimiter or a line break")
    return Raw(line, row=dict(zip(header, cells, strict=False)), text=text, problem=problem)


def read_parquet(path: Path) -> Iterator[Raw]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield from _batches(file.iter_batches(batch_size=BATCH), path)
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        raise _not_a("Parquet", path, error) from error


def read_arrow(path: Path) -> Iterator[Raw]:
    """Arrow and Feather files, as a file or as a stream (what `datasets` saves)."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            try:
                file = pa.ipc.open_file(source)
                batches = (file.get_batch(number) for number in range(file.num_record_batches))
            except pa.ArrowInvalid:
                source.seek(0)
                batches = iter(pa.ipc.open_stream(source))
            yield from _batches(batches, path)
    except (pa.ArrowException, ValueError, OverflowError, OSError) as error:
        raise _not_a("Arrow", path, error) from error


def _not_a(name: str, path: Path, error: Exception) -> Exception:
    if isinstance(error, OSError) and error.errno:
        return error  # the system's own, told as such
    what = (str(error).splitlines() or ["it ends early"])[0][:200]
    return DataError(307, f"not a {name} file: {what}", where=str(path), cure="write the file again")


def _batches(batches: Iterator[Any], path: Path) -> Iterator[Raw]:
    number = 0
    for batch in batches:
        batch.validate(full=True)  # a damaged Arrow file has offsets that point outside of it
        for start in range(0, batch.num_rows, BATCH):
            for row in _rows(batch.slice(start, BATCH)):
                number += 1
                yield Raw(number, row=row)
    if not number:
        raise DataError(302, "empty file", where=str(path), expected="at least one row")


def _rows(batch: Any) -> list[dict[str, Any]]:
    """The rows as Python values; a time that Python has no date for is the number that stands there."""
    try:
        found: list[dict[str, Any]] = batch.to_pylist()
        return found
    except UnicodeDecodeError:
        raise
    except (OverflowError, ValueError):
        columns = {name: _values(column) for name, column in zip(batch.schema.names, batch.columns, strict=True)}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _values(column: Any) -> list[Any]:
    import pyarrow as pa

    try:
        return list(column.to_pylist())
    except (OverflowError, ValueError):
        if not pa.types.is_temporal(column.type):
            raise
        return list(column.cast(pa.int64()).to_pylist())
