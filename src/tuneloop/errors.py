"""Every error a user can cause, with its code, place, expectation and cure.

    TuneloopError            base: never raised itself
    |- UsageError            exit 2   TL-1xx   command line or config
    |- PrerequisiteError     exit 3   TL-2xx   something on this machine is missing
    |- DataError             exit 4   TL-3xx   the data cannot be used
    |- PartialError          exit 5   TL-4xx   stopped early, what was done is kept
    `- Interrupted           exit 128 + signal number, state saved

A bug is anything else: it keeps its traceback and exits 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class TuneloopError(Exception):
    """What is wrong, where, what was expected and what to do; `str()` renders all four."""

    exit_code = 1

    def __init__(
        self,
        number: int,
        what: str,
        *,
        where: str = "",
        expected: str = "",
        cure: str = "",
    ) -> None:
        super().__init__(what)
        self.number = number
        self.what = what
        self.where = where
        self.expected = expected
        self.cure = cure

    def __reduce__(self) -> tuple[Any, ...]:
        # Workers raise these too, and they cross a pipe.
        return _again, (type(self), dict(self.__dict__))

    @property
    def code(self) -> str:
        return f"TL-{self.number:03d}"

    def __str__(self) -> str:
        lines = [f"{self.code} {self.what}"]
        for label, text in (
            ("where", self.where),
            ("expected", self.expected),
            ("do", self.cure),
        ):
            if text:
                lines.append(f"  {label + ':':<10}{text}")
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str | int]:
        """The same as JSON, for `--json`."""
        return {
            "code": self.code,
            "what": self.what,
            "where": self.where,
            "expected": self.expected,
            "do": self.cure,
            "exit": self.exit_code,
        }


def _again(kind: type[TuneloopError], held: dict[str, Any]) -> TuneloopError:
    error = kind.__new__(kind, held["what"])
    error.__dict__.update(held)
    return error


class UsageError(TuneloopError):
    exit_code = 2


class PrerequisiteError(TuneloopError):
    exit_code = 3


class DataError(TuneloopError):
    exit_code = 4


class PartialError(TuneloopError):
    exit_code = 5


class Interrupted(TuneloopError):
    """A signal stopped the run, whose state was saved if `saved`; exit code 130 (SIGINT) or 143 (SIGTERM)."""

    def __init__(self, signum: int, *, where: str = "", cure: str = "", saved: bool = True) -> None:
        super().__init__(
            400 + signum,
            f"stopped by signal {signum}; {'state saved' if saved else 'the last checkpoint stands, if there is one'}",
            where=where,
            cure=cure,
        )
        self.exit_code = 128 + signum


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint 'did you mean X?', or the known names when nothing is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else "one of: " + ", ".join(names)
