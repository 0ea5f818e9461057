"""What a benchmark is: rows from somewhere, a prompt, what is scored, and a version.

A task of one's own is a Python file with `TASK = Task(...)`; `docs/evaluation.md` shows one of each kind.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

Doc = dict[str, Any]


@dataclass
class Item:
    """One row to score.

    A choice: `options` are continuations of `prompt` (a space goes before each), `gold` the indices of the right ones.
    Generated text: `options` are reference answers, those at `gold` right, the rest wrong.
    """

    prompt: str
    options: list[str]
    gold: list[int]
    question: str = ""
    category: str = ""
    group: str = ""  # rows that share a source: their errors are not independent
    id: str = ""
    texts: list[str] = field(default_factory=list)  # what lettered options stand for
    flags: list[str] = field(default_factory=list)  # what a reader of this row should know

    @property
    def right(self) -> list[str]:
        return [self.options[i] for i in self.gold]

    @property
    def wrong(self) -> list[str]:
        return [option for i, option in enumerate(self.options) if i not in self.gold]


@dataclass(frozen=True)
class Source:
    """`files[split]`: names without suffix below a data folder, first found wins. `hub`: (repository, config)."""

    files: dict[str, tuple[str, ...]]
    hub: tuple[str, str | None]


@dataclass(frozen=True)
class Task:
    """A benchmark.

    `rows` says where documents come from: a Source, or a function of the split's name. `item` makes a row of one.
    Without `grade` the options' log-likelihoods are scored by `metric`: 'acc' (and, where `normalised`, accuracy by
    characters, lm-eval's acc_norm) or 'mc2'. With `grade(text, item) -> {metric: value}` the model writes up to `stop`
    or `max_new_tokens` and the first metric is the row's `correct`.
    """

    name: str
    version: str
    rows: Source | Callable[[str], Sequence[Doc]]
    item: Callable[[Doc], Item]
    scored: str = "test"
    metric: str = "acc"
    normalised: bool = False
    grade: Callable[[str, Item], dict[str, float]] | None = None
    stop: tuple[str, ...] = ("\n\n",)
    max_new_tokens: int = 256
    shots_from: str | None = None
    first_shots: bool = False  # shots are the first rows in order, never drawn
    # lm-eval draws a shot more and drops it, where its file names neither a test split nor one for shots.
    one_more: bool = False
    by_category: bool = False  # shots come from the row's own category
    pinned: bool = False  # shots are part of the prompt and cannot be asked for
    head: Callable[[Item], str] | None = None
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)  # category groups with a score of their own
    only: tuple[str, ...] = ()  # categories that are scored; all when empty

    def __post_init__(self) -> None:
        if not self.name or not isinstance(self.name, str) or not isinstance(self.version, str):
            raise TypeError("name and version are strings")
        if not callable(self.item) or not (isinstance(self.rows, Source) or callable(self.rows)):
            raise TypeError("rows is a Source or a function of the split, item a function of a row")
        if self.metric not in ("acc", "mc2") or not (self.grade is None or callable(self.grade)):
            raise ValueError("metric is 'acc' or 'mc2'; other scores come from a function `grade`")
