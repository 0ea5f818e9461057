"""Files as bytes and lines, whatever they are packed in."""

from __future__ import annotations

import gzip
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from tuneloop.data.rows import TO_UTF8, Refused
from tuneloop.errors import DataError, PrerequisiteError, UsageError

JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
TABLE_SUFFIXES = {".csv", ".tsv", ".parquet", ".arrow", ".feather"}
TEXT_SUFFIXES = {".txt", ".md", ".markdown"}
BINARY_SUFFIXES = {".parquet", ".arrow", ".feather"}
SUFFIXES = JSON_SUFFIXES | TABLE_SUFFIXES | TEXT_SUFFIXES
PACKED = (".gz", ".zst")
BOM = b"\xef\xbb\xbf"


def packing(path: Path) -> str:
    return next((suffix for suffix in PACKED if path.name.lower().endswith(suffix)), "")


def kind(path: Path) -> str:
    """The suffix that decides how a file is read: the one before .gz or .zst."""
    return Path(path.name.lower().removesuffix(packing(path))).suffix


def readable(path: Path) -> bool:
    return kind(path) in SUFFIXES and not (packing(path) and kind(path) in BINARY_SUFFIXES)


def open_binary(path: Path) -> IO[bytes]:
    if packing(path) == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if packing(path) == ".zst":
        import pyarrow as pa

        return cast(IO[bytes], _Buffered(pa.input_stream(str(path), compression="zstd")))
    return open(path, "rb")


class _Buffered:
    """Lines from a stream that has none, without a second copy of the file."""

    def __init__(self, stream: Any) -> None:
        self.stream, self.rest = stream, b""

    def __enter__(self) -> _Buffered:
        return self

    def __exit__(self, *_: object) -> None:
        self.stream.close()

    def read(self, size: int) -> bytes:
        data, self.rest = self.rest, b""
        return data or bytes(self.stream.read(size))

    def __iter__(self) -> Iterator[bytes]:
        while data := self.stream.read(1 << 20):
            pieces = (self.rest + data).split(b"\n")
            self.rest = pieces.pop()
            yield from (piece + b"\n" for piece in pieces)
        if self.rest:
            last, self.rest = self.rest, b""
            yield last


def guarded(path: Path, reader: Callable[[Path], Iterator[Any]]) -> Iterator[Any]:
    """Turns what a broken container raises into a coded error."""
    try:
        yield from reader(path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise _broken("gzip", path, error) from error
    except OSError as error:
        if packing(path) == ".zst" and error.errno is None:
            raise _broken("zstd", path, error) from error
        raise UsageError(
            131, f"cannot read the file: {error.strerror or error}", where=str(path), cure="check the file's rights"
        ) from error


def _broken(name: str, path: Path, error: Exception) -> DataError:
    what = str(error).splitlines()[0] if str(error) else "it ends early"
    return DataError(301, f"broken {name} file: {what}", where=str(path), cure="fetch or compress the file again")


def check_head(path: Path) -> None:
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


def text_lines(path: Path) -> Iterator[str]:
    """Text lines; bytes that do not decode stay visible as lone surrogates, so that their row can be refused."""
    with open_binary(path) as file:
        for number, data in enumerate(file):
            yield (data.removeprefix(BOM) if number == 0 else data).decode("utf-8", "surrogateescape")


def undecoded(text: str) -> Refused | None:
    for sign in "" if text.isascii() else text:
        if 0xDC80 <= ord(sign) <= 0xDCFF:
            return Refused("wrong_encoding", value=f"byte {ord(sign) - 0xDC00:#04x}", cure=TO_UTF8)
    return None


def spool_stdin() -> Path:
    """Standard input as a file, since rows are looked at before they are read; its kind is told from its beginning."""
    with tempfile.NamedTemporaryFile(prefix="tuneloop-stdin-", delete=False) as file:
        try:
            shutil.copyfileobj(sys.stdin.buffer, file)
        except OSError as error:
            raise PrerequisiteError(
                284,
                f"standard input cannot be kept: {error}",
                where=file.name,
                cure="free space in the temporary folder",
            ) from error
    path = Path(file.name)
    return path.rename(path.with_name(f"{path.name}{_sniffed(path)}"))


def _sniffed(path: Path) -> str:
    """The suffix that the first bytes call for."""
    with open(path, "rb") as file:
        head = file.read(1 << 16)
    for magic, suffix in (
        (b"PAR1", ".parquet"),
        (b"ARROW1", ".arrow"),
        (b"\x1f\x8b", ".jsonl.gz"),
        (b"\x28\xb5\x2f\xfd", ".jsonl.zst"),
    ):
        if head.startswith(magic):
            return suffix
    start = head.removeprefix(BOM).lstrip()
    if start[:1] in (b"{", b"["):
        return ".json" if start[:1] == b"[" else ".jsonl"
    first = start.split(b"\n")[0]
    return ".csv" if any(first.count(sign) for sign in (b",", b";", b"\t")) and b"\n" in start else ".txt"
