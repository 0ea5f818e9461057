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
    with _bar() as bar:
        state.bar, state.task = bar, bar.add_task(description, total=total, text="")
        yield state


def _bar() -> Any:
    """The bar with what is told about it on a line of its own, so that neither is cut at 80 columns."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Bar(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if task.fields["text"]:
                    yield Text(f"  {task.fields['text']}", no_wrap=True, overflow="ellipsis")

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Bar(*columns, console=Console(stderr=True), transient=True)
