"""One candidate under way: what a method sees of the run, and how it asks."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tuneloop.config.generate import GenerateConfig
from tuneloop.errors import TuneloopError
from tuneloop.generate.prompts import Templates
from tuneloop.generate.structure import Misshapen, Shape, read, schema_of
from tuneloop.lm.asking import Answer, Ask, Failed, Teacher, request_key
from tuneloop.records import Example, example_id

T = TypeVar("T", bound=Shape)
ASK = Callable[[Ask], Awaitable[Answer]]


class Dropped(Exception):
    """No row comes of this candidate; the reason is counted and `value` shown."""

    def __init__(self, reason: str, value: object = "") -> None:
        super().__init__(reason)
        self.reason, self.value = reason, str(value)


@contextmanager
def checking() -> Iterator[None]:
    """A check that breaks on what a model wrote drops that candidate, by the name of what was raised, and no other.

    What is wrong with the machine or the config (OSError, MemoryError, a coded error) still ends the run.
    """
    try:
        yield
    except (Dropped, TuneloopError, OSError, MemoryError):
        raise
    except Exception as error:
        raise Dropped(f"check_{type(error).__name__}", error) from error


@dataclass(frozen=True)
class Inputs:
    """What the rows are made from. `documents` are (id, text); `weak` the lines of an analysis for this stage."""

    seeds: list[Example] = field(default_factory=list)
    documents: list[tuple[str, str]] = field(default_factory=list)
    weak: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Workshop:
    """What all candidates of a run share."""

    config: GenerateConfig
    inputs: Inputs
    templates: Templates
    teacher: Teacher
    ask: ASK
    judge: Teacher
    ask_judge: ASK


@dataclass
class Candidate:
    """`index` counts from 0; `pool` is what was accepted when it was started; `rng` depends on run seed and index."""

    shop: Workshop
    index: int
    pool: Sequence[Example]
    requests: list[str] = field(default_factory=list)
    judged: list[str] = field(default_factory=list)  # requests to the judge
    template: str = ""
    raw: str = ""  # the last answer, quoted when nothing comes of it

    def __post_init__(self) -> None:
        self.rng = random.Random(f"{self.shop.config.seed}:{self.index}")
        self.config, self.inputs = self.shop.config, self.shop.inputs

    def item(self, items: Sequence[Any]) -> Any:
        """The input of this candidate where a method goes through inputs one by one."""
        return items[self.index % len(items)]

    async def ask(self, template: str, *, vary: int = 0, temperature: float | None = None, **values: Any) -> str:
        """The answer to a rendered template. `vary` tells apart several answers to the same prompt."""
        text = self.shop.templates.render(template, **values)
        return (await self.send(template, [{"role": "user", "content": text}], vary=vary, temperature=temperature)).text

    async def send(
        self, template: str, messages: list[dict[str, Any]], *, vary: int = 0, temperature: float | None = None,
        schema: dict[str, Any] | None = None, prompt: str | None = None, stop: tuple[str, ...] = (),
    ) -> Answer:  # fmt: skip
        """One call. Raises Dropped where the answer was cut off or the server filtered it."""
        teacher = self.config.teacher
        ask = Ask(
            messages=tuple(messages), prompt=prompt, max_new_tokens=teacher.max_new_tokens, top_p=teacher.top_p,
            temperature=teacher.temperature if temperature is None else temperature,
            seed=_seed(self.config.seed, self.index, vary), stop=stop, schema=schema, template=template,
        )  # fmt: skip
        if not self.template:
            self.template = template
        self.requests.append(request_key(self.shop.teacher.name, ask))
        answer = await self.shop.ask(ask)
        self.raw = answer.text
        if answer.finish == "length":
            raise Dropped("length", f"cut off after {answer.completion_tokens or teacher.max_new_tokens} tokens")
        if answer.finish == "content_filter":
            raise Dropped("content_filter", answer.text)
        return answer

    async def ask_judge(self, prompt: str, most_tokens: int) -> str:
        """The judge's answer, cold: the same prompt is one call, whoever asks."""
        message = {"role": "user", "content": prompt}
        ask = Ask(messages=(message,), max_new_tokens=most_tokens, temperature=0.0, seed=0, template="judge")
        self.judged.append(request_key(self.shop.judge.name, ask))
        return (await self.shop.ask_judge(ask)).text

    async def ask_for(self, shape: type[T], template: str, *, vary: int = 0, **values: Any) -> T:
        """A structured answer: the schema is sent where the server enforces one, checked here, and mended once."""
        prompt = self.shop.templates.render(template, **values)
        schema = schema_of(shape) if "json_schema" in self.shop.teacher.capabilities else None
        messages = [{"role": "user", "content": prompt}]
        answer = await self.send(template, messages, vary=vary, schema=schema)
        try:
            return read(answer.text, shape)
        except Misshapen as problem:
            again = self.shop.templates.render("repair", problem=problem.what, schema=schema_of(shape))
        messages += [{"role": "assistant", "content": answer.text or "(nothing)"}, {"role": "user", "content": again}]
        answer = await self.send("repair", messages, vary=vary, schema=schema, temperature=0.0)
        try:
            return read(answer.text, shape)
        except Misshapen as problem:
            raise Failed(problem.kind, f"still wrong after one repair: {problem.what}", raw=answer.text) from problem

    def row(
        self, parents: Sequence[Example | str], *, messages: list[dict[str, Any]] | None = None,
        meta: dict[str, Any] | None = None, scores: dict[str, float] | None = None, **fields: Any,
    ) -> Example:  # fmt: skip
        """A row with its lineage. One parent: the row is of its group; several (examples in a prompt): of its own."""
        ids = [parent if isinstance(parent, str) else parent.id for parent in parents]
        groups = {parent if isinstance(parent, str) else parent.group or parent.id for parent in parents}
        splits = {_split(parent) for parent in parents}
        names = self.shop.templates
        generator = {
            "model": self.shop.teacher.name, "method": self.config.method,
            "template": f"{self.template}@{names.hash(self.template)}", "seed": self.config.seed,
            "request": self.requests[-1], "requests": list(self.requests), "licence": self.config.licence,
        }  # fmt: skip
        if len(splits) == 1 and None not in splits:
            generator["split"] = splits.pop()
        row = Example(
            messages=messages, parents=ids, group=groups.pop() if len(groups) == 1 else "", meta=dict(meta or {}),
            scores=dict(scores or {}), generator=generator, **fields,
        )  # fmt: skip
        row.id = example_id(row)
        return row


def _seed(seed: int, index: int, vary: int) -> int:
    """One number for a call, below 2**31 as servers want it."""
    return random.Random(f"{seed}:{index}:{vary}").randrange(2**31)


def _split(parent: Example | str) -> str | None:
    """The split of a seed from a data folder, or what a generated parent noted."""
    if isinstance(parent, str):
        return None
    if parent.generator is not None:
        return parent.generator.get("split")
    return parent.split or None


def exchange(prompt: str, answer: str, system: str = "") -> list[dict[str, Any]]:
    head = [{"role": "system", "content": system}] if system else []
    return [*head, {"role": "user", "content": prompt.strip()}, {"role": "assistant", "content": answer.strip()}]


def question_of(example: Example) -> str:
    """What a seed asks: its last user turn, its prompt, or its text."""
    for turn in reversed(example.messages or []):
        if turn.get("role") == "user":
            return str(turn.get("content") or "")
    return example.prompt or example.text or ""


def answer_of(example: Example) -> str:
    if example.messages:
        return str(example.messages[-1].get("content") or "")
    return example.completion or (example.chosen if isinstance(example.chosen, str) else "") or ""
