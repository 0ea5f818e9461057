"""How a contender words a row: instruction, shots (fixed or retrieved), thoughts before the answer, votes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuneloop.neighbours.bm25 import Bm25
from tuneloop.prompts import encode, encode_prompt
from tuneloop.records import Example

# Zero-shot chain of thought in two passes. Source: Kojima et al. 2022, arXiv 2205.11916.
THINK = "Let's think step by step."
SO = "\nSo the answer is:"


@dataclass(frozen=True)
class Prompting:
    """Everything a prompt adds to a row. `samples` > 1 asks that often at a temperature and takes the majority."""

    instruction: str = ""
    shots: int = 0
    retrieved: bool = False
    shot_seed: int = 0
    thinks: bool = False
    samples: int = 1


def answer_of(example: Example) -> str:
    """What the model should write; empty where the last turn is not an answer."""
    if example.messages:
        last = example.messages[-1]
        return str(last["content"]).strip() if last["role"] == "assistant" and last.get("content") else ""
    return (example.completion or "").strip()


def question_of(example: Example) -> str:
    if example.messages:
        asked = [str(m["content"]) for m in example.messages[:-1] if m["role"] == "user"]
        return asked[-1] if asked else ""
    return example.prompt or (example.text or "")[:500]


class Prompter:
    """Lays rows out under a Prompting. Shots come from `pool`, rows of the train split, and from nowhere else."""

    def __init__(self, prompting: Prompting, pool: list[Example]) -> None:
        self.prompting = prompting
        self.pool = [e for e in pool if e.kind != "text" and answer_of(e)]
        self.fewer = 0  # rows whose shots did not all fit
        self._index: Bm25 | None = None
        count = min(prompting.shots, len(self.pool))
        self._fixed = [] if prompting.retrieved else random.Random(prompting.shot_seed).sample(self.pool, count)

    def shots(self, example: Example) -> list[Example]:
        """The rows shown before this one; of retrieved ones the best stands last, next to the question."""
        if not self.prompting.shots or not self.prompting.retrieved:
            return [s for s in self._fixed if not example.id or s.id != example.id]
        if self._index is None:
            self._index = Bm25([question_of(e) for e in self.pool])
        found = self._index.nearest(question_of(example), self.prompting.shots + 1)
        kept = [self.pool[i] for i in found if not example.id or self.pool[i].id != example.id]
        return kept[: self.prompting.shots][::-1]

    def shown(self, example: Example, shots: list[Example]) -> Example:
        """The example with instruction and shots before it."""
        if example.kind == "text" or not (shots or self.prompting.instruction):
            return example
        if example.messages is None:
            head = f"{self.prompting.instruction}\n\n" if self.prompting.instruction else ""
            head += "".join(f"{s.prompt or ''}{s.completion or ''}\n\n" for s in shots if s.messages is None)
            return Example(kind=example.kind, prompt=head + (example.prompt or ""), completion=example.completion)
        turns = [m for s in shots for m in (s.messages or []) if m["role"] != "system"]
        system = [m for m in example.messages if m["role"] == "system"]
        # Shots are not what is scored: weight 0 keeps their answers out of the mask.
        before = [{**m, "weight": 0} if m["role"] == "assistant" else m for m in turns]
        rest = [m for m in example.messages if m["role"] != "system"]
        return Example(kind=example.kind, messages=[*system, *self._instructed([*before, *rest])], label=example.label)

    def _instructed(self, turns: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """The instruction leads the first user turn: not every template takes a system turn."""
        if not self.prompting.instruction:
            return turns
        first = next((i for i, m in enumerate(turns) if m["role"] == "user"), None)
        if first is None:
            return [{"role": "user", "content": self.prompting.instruction}, *turns]
        led = {**turns[first], "content": f"{self.prompting.instruction}\n\n{turns[first]['content']}"}
        return [*turns[:first], led, *turns[first + 1 :]]

    def fitting(self, example: Example, size: Callable[[Example], int], room: int) -> Example:
        """The example with as many of its shots as leave it within `room` tokens; the farthest go first."""
        shots = self.shots(example)
        asked = len(shots)
        shown = self.shown(example, shots)
        while shots and size(shown) > room:
            shots = shots[1:]
            shown = self.shown(example, shots)
        self.fewer += len(shots) < asked
        return shown


def prompt_ids(shown: Example, tokenizer: Any) -> list[int]:
    """Token ids up to the answer."""
    if shown.messages is not None:
        return encode_prompt(shown.messages[:-1], tokenizer)
    found = encode(shown, tokenizer)
    return found.input_ids[: found.trained.index(True)]
