"""What people see: lines and progress bars on stderr, so that stdout stays free for results."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_mode = {"quiet": False, "verbose": False}


def set_mode(*, quiet: bool = False, verbose: bool = False) -> None:
    """`quiet` drops everything but warnings; `verbose` adds `detail` lines."""
    _mode.update(quiet=quiet, verbose=verbose)


def is_quiet() -> bool:
    return _mode["quiet"]


def say(message: str) -> None:
    if not _mode["quiet"]:
        print(message, file=sys.stderr, flush=True)


def detail(message: str) -> None:
    if _mode["verbose"]:
        say(message)


def warn(message: str) -> None:
    print(f"warning: {message}", file=sys.stderr, flush=True)


class Progress:
    """One bar on a terminal, or a line every ten seconds where stderr is a file."""

    def __init__(self, description: str, total: int | None) -> None:
        self.description, self.total, self.done = description, total, 0
        self.started = self.printed = time.monotonic()
        self.text = ""
        self.bar: Any = None
        self.task: Any = None

    def advance(self, n: int = 1, **fields: object) -> None:
        self.done += n
        if fields:
            self.text = "  ".join(f"{key} {_short(value)}" for key, value in fields.items())
        if self.bar is not None:
            self.bar.update(self.task, advance=n, text=self.text)
        elif not _mode["quiet"] and time.monotonic() - self.printed > 10:
            self.printed = time.monotonic()
            say(f"{self.description}: {self.done}/{self.total or '?'}  {self.text}  {self._left()}")

    def update(self, text: str) -> None:
        self.text = text
        self.advance(0)

    def _left(self) -> str:
        if not self.total or not self.done:
            return ""
        seconds = (time.monotonic() - self.started) / self.done * (self.total - self.done)
        return f"{seconds:.0f} s left"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def progress(description: str, total: int | None = None) -> Iterator[Progress]:
    """`with progress("train", 100) as bar: bar.advance(loss=1.2)`."""
    state = Progress(description, total)
    if _mode["quiet"] or not sys.stderr.isatty():
        yield state
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bar

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bar(
        *columns,
        TextColumn("{task.fields[text]}"),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        state.bar, state.task = bar, bar.add_task(description, total=total, text="")
        yield state
