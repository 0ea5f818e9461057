"""The rows of a data folder's split as one contender sees them."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tuneloop.config import EvalConfig
from tuneloop.errors import UsageError
from tuneloop.evaluate.prompting import Prompter, Prompting, answer_of, prompt_ids, question_of
from tuneloop.evaluate.rows import Part, Row
from tuneloop.records import Example, read_examples
from tuneloop.text import in_half, share

ANSWER_ROOM = 8  # tokens kept free for an answer when shots are fitted in


def drawn(rows: list[Example], limit: int | None, seed: int) -> list[Example]:
    """`limit` of the rows in their order: a fixed draw, because files are often sorted by label; a smaller one is part
    of a larger one."""
    if limit is None or limit >= len(rows):
        return rows
    kept = sorted(range(len(rows)), key=lambda i: share(f"{rows[i].id} {i}", seed))[:limit]
    return [rows[i] for i in sorted(kept)]


def check_folder(data: Path) -> None:
    """UsageError 115 unless `data` is a data folder; before anything is hashed, which takes long for a wrong one."""
    if not any((data / split).is_dir() for split in ("train", "valid", "test")):
        raise UsageError(
            115, "not a 'data' folder", where=str(data), expected="train, valid or test rows",
            cure="give a folder that `tuneloop data` wrote",
        )  # fmt: skip


class Split:
    """Rows of `which` split under `prompting`; shots and labels come from the train split alone.

    `rows` stand for those of the split where they are given. `room` is the model's context in tokens. `labelled` rows
    have a label, `chosen` rows options of their own, `asked` rows an answer to write. Without a tokenizer (a server's
    model) nothing is known about room, and all shots stand.
    """

    def __init__(
        self, data: Path, config: EvalConfig, tokenizer: Any, prompting: Prompting, *, room: int,
        which: str = "test", rows: list[Example] | None = None,
    ) -> None:  # fmt: skip
        self.data, self.config, self.tokenizer, self.room, self.which = data, config, tokenizer, room, which
        self.prompting = prompting
        self.rows = drawn(read_examples(data, which), config.limit, config.seed) if rows is None else rows
        if rows is None and which == "test":
            self.rows = [e for e in self.rows if in_half(e.group or e.id, config.half)]
        self.train = read_examples(data, "train")
        self.prompter = Prompter(prompting, self.train)
        self.labelled = [e for e in self.rows if e.kind == "classification"]
        self.chosen = [e for e in self.rows if e.kind == "completion" and len(e.meta.get("options") or []) > 1]
        self.asked = [e for e in self.rows if e.kind in ("chat", "completion") and answer_of(e)]
        self._shown: dict[int, Example] = {}

    @cached_property
    def labels(self) -> list[str]:
        """The labels of the train split, and those that only this split has."""
        return sorted({str(e.label) for e in [*self.train, *self.labelled] if e.kind == "classification" and e.label})

    @cached_property
    def keys(self) -> dict[int, str]:
        """id() of a row -> its key: the content's hash, numbered where the same content stands twice."""
        seen: dict[str, int] = {}
        found = {}
        for number, e in enumerate(self.rows):
            name = e.id or str(number)
            seen[name] = seen.get(name, 0) + 1
            found[id(e)] = name if seen[name] == 1 else f"{name}-{seen[name]}"
        return found

    def shown(self, example: Example) -> Example:
        """The row with what the contender puts before it, laid out once."""
        if id(example) not in self._shown and self.tokenizer is None:
            self._shown[id(example)] = self.prompter.shown(example, self.prompter.shots(example))
        if id(example) not in self._shown:
            longest = ANSWER_ROOM + 4 * len(answer_of(example).split())
            self._shown[id(example)] = self.prompter.fitting(
                example, lambda e: len(prompt_ids(e, self.tokenizer)), self.room - longest
            )
        return self._shown[id(example)]

    def prompt_ids(self, example: Example) -> list[int]:
        """Token ids up to the answer."""
        return prompt_ids(self.shown(example), self.tokenizer)

    def known(self, example: Example, part: Part, ids: list[int]) -> Row:
        """The columns that every row of a split has."""
        return {
            "question": question_of(example), "category": example.label or "", "group": example.group,
            "prompt_hash": part.prompt(self.tokenizer.decode(ids)), "prompt_tokens": len(ids),
            "text_gold": answer_of(example),
        }  # fmt: skip

    def remark(self, part: Part, task: str) -> None:
        """Warnings about rows that were cut or got fewer shots."""
        cut = sum(r["truncated"] for r in part.rows)
        if cut:
            part.warnings.append(f"{task}: {cut:,} of {len(part.rows):,} rows lost the beginning to the context length")
        if self.prompter.fewer:
            part.warnings.append(
                f"{task}: {self.prompter.fewer:,} of {len(self._shown):,} rows had room for fewer than "
                f"{self.prompting.shots} shots"
            )
