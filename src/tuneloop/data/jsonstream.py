"""JSON values one after another from a file that may be larger than memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from tuneloop.data.rows import TO_UTF8
from tuneloop.errors import DataError

CHUNK = 1 << 20
BLANKS = re.compile(r"\s*")


class JsonStream:
    """Holds the text of about one value. A broken place is a DataError with line and column."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file = path, file
        # `at` moves through the buffer, which is cut only when more is read: values are small beside it.
        self.buffer, self.at, self.line, self.bytes, self.done = "", 0, 1, 0, False
        self.utf8 = codecs.getincrementaldecoder("utf-8")()
        self.json = json.JSONDecoder()

    def array(self) -> Iterator[tuple[int, Any]]:
        """(line, value) of every element of an array that fills the file."""
        self._take("[")
        if self.peek() == "]":
            raise DataError(302, "an empty array", where=str(self.path), expected="at least one row")
        while True:
            yield self.value()
            if self.peek() != ",":
                break
            self._take(",")
        self._take("]")
        if self.peek():
            raise self._error("text after the end of the array", self.at)

    def value(self) -> tuple[int, Any]:
        """The next value and the line it begins on."""
        self.peek()
        while True:
            try:
                value, end = self.json.raw_decode(self.buffer, self.at)
                # A number at the very end of the buffer may go on in the next chunk.
                if end < len(self.buffer) or not self._more():
                    break
            except RecursionError as error:
                raise self._error("nested too deep", self.at) from error
            except json.JSONDecodeError as error:
                # More text may only mend what the end of the buffer cut.
                if len(self.buffer) - error.pos > CHUNK and not error.msg.startswith("Unterminated"):
                    raise self._error(error.msg, error.pos) from error
                if not self._more():
                    raise self._error(error.msg, error.pos) from error
            except ValueError as error:
                raise self._error("a number of too many digits", self.at) from error
        line = self.line
        self._drop(end)
        return line, value

    def peek(self) -> str:
        """The next character that is not white space, or '' at the end."""
        while True:
            end = len(self.buffer)
            place = BLANKS.match(self.buffer, self.at).end()  # type: ignore[union-attr]
            if place < end or not self._more():
                self._drop(place)
                return self.buffer[place : place + 1]

    def _more(self) -> bool:
        if self.done:
            return False
        # Doubling keeps the cost of trying again linear in the size of the value.
        data = self.file.read(max(CHUNK, len(self.buffer) - self.at))
        self.done = not data
        if data:  # at the end positions stay valid, for the error that follows
            self.buffer, self.at = self.buffer[self.at :], 0
        try:
            text = self.utf8.decode(data, final=self.done)
        except UnicodeDecodeError as error:
            before = bytes(error.object)
            line = self.line + self.buffer.count("\n", self.at) + before[: error.start].count(b"\n")
            raise DataError(
                303,
                f"not UTF-8: byte {before[error.start]:#04x}",
                where=f"{self.path}:{line} (byte {self.bytes - (len(before) - len(data)) + error.start})",
                expected="UTF-8",
                cure=TO_UTF8,
            ) from error
        self.buffer += text.removeprefix("\ufeff") if self.bytes == 0 else text
        self.bytes += len(data)
        return not self.done

    def _drop(self, end: int) -> None:
        self.line += self.buffer.count("\n", self.at, end)
        self.at = end

    def _take(self, sign: str) -> None:
        found = self.peek()
        if found != sign:
            raise self._error(f"expected '{sign}', found '{found or 'the end of the file'}'", self.at)
        self._drop(self.at + 1)

    def _error(self, what: str, position: int) -> DataError:
        line = self.line + self.buffer.count("\n", self.at, position)
        column = position - self.buffer.rfind("\n", 0, position)
        return DataError(
            304,
            f"broken JSON: {what}",
            where=f"{self.path}:{line} (column {column})",
            expected="an array of objects, or one object a line",
            cure="mend that place, or save the rows as JSON lines, where a broken row costs only itself",
        )
