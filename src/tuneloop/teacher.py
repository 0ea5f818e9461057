"""A scripted teacher that knows the embedded world, and the choice among teachers.

It works from the prompt alone, as a language model would: it finds the world's questions in it, sees which object is
asked for, and answers truly, about people, places and things that tuning may use (never those of the benchmarks). The
same prompt and seed give the same answer, in this process and over HTTP.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneloop.config import DataConfig, TeacherConfig
from tuneloop.lm import open_teacher as open_other
from tuneloop.lm.asking import Answer, Ask, Message, Teacher
from tuneloop.world.asked import Fact, Reader

LETTERS = "ABCD"
PEOPLE_OF = ("curious", "careful", "old", "young", "quiet", "talkative", "travelling", "busy")


def open_teacher(config: TeacherConfig, *, world_seed: int = 0) -> Teacher:
    """'world' is the script; an address is a server; anything else a model in this process."""
    if config.name == "world" and config.base_url is None:
        return WorldTeacher(world_seed)
    return open_other(config)


class WorldTeacher:
    """`mistakes`: the share of answers that are wrong, for tests of verifiers and judges."""

    def __init__(self, world_seed: int = 0, *, mistakes: float = 0.0, name: str = "world") -> None:
        self.name, self.mistakes = name, mistakes
        self.capabilities = frozenset({"chat", "completions", "json_schema"})
        self.reader = Reader(world_seed)

    async def ask(self, ask: Ask, key: str) -> Answer:
        messages = list(ask.messages) if ask.prompt is None else [{"role": "user", "content": ask.prompt}]
        text = self.answer(messages, ask.seed or 0, raw=ask.prompt is not None)
        asked = sum(len(str(m["content"]).split()) for m in messages)
        return Answer(text, "stop", asked, len(text.split()))

    async def close(self) -> None:
        return None

    def complete(self, asks: Any, *, max_new_tokens: int = 128) -> list[str]:
        """The protocol of `lm`: answers in order."""
        told = [[{"role": "user", "content": ask}] if isinstance(ask, str) else ask for ask in asks]
        return [self.answer(messages) for messages in told]

    def answer(self, messages: list[Message], seed: int = 0, *, raw: bool = False) -> str:
        told = [str(m["content"]) for m in messages]
        rng = random.Random(f"{seed}\n" + "\n".join(told))
        if raw:
            return self._new(rng, None).question
        # A request to mend an answer stands last; what was asked stands first.
        prompt = told[0] if "fits this JSON schema" in told[-1] else told[-1]
        for mark, make in self._shapes():
            if mark in prompt:
                found = make(prompt, rng)
                return found if isinstance(found, str) else json.dumps(found)
        facts = self.reader.find(prompt)
        return self._say(facts[-1], rng) if facts else "I do not know anything about that."

    def _shapes(self) -> list[tuple[str, Callable[[str, random.Random], Any]]]:
        """What is asked for, told by the keys of the object, the rarer ones first."""
        return [
            ('{"equal"', self._equal), ('"better"', self._better), ('"correct": n', self._grade),
            ('"tasks"', self._tasks), ('"rows"', self._rows), ('"quote"', self._document), ('"persona"', self._persona),
            ('"message"', self._follow_up), ('{"question"', self._refuse), ('{"instruction"', self._instruction),
        ]  # fmt: skip

    def _new(self, rng: random.Random, like: Fact | None, *, same_words: bool = False) -> Fact:
        return self.reader.another(rng, like, same_words=same_words)

    def _say(self, fact: Fact, rng: random.Random) -> str:
        return rng.choice(fact.wrong) if rng.random() < self.mistakes else fact.answer

    def _tasks(self, prompt: str, rng: random.Random) -> Any:
        seen = self.reader.find(prompt)
        made = [self._new(rng, rng.choice(seen) if seen else None) for _ in range(_count(prompt, "new tasks", 4))]
        return {"tasks": [{"instruction": fact.question, "answer": self._say(fact, rng)} for fact in made]}

    def _rows(self, prompt: str, rng: random.Random) -> Any:
        """New questions in the layout of an example: what stands around its question and options is kept."""
        examples = re.split(r"\n\s*Example \d+:\n", prompt.split("Questions that it got wrong:")[-1])[1:]
        examples[-1:] = [text.split("\n\nWrite ")[0] for text in examples[-1:]]
        examples = [text.split("\n(right answer: ")[0] for text in examples]
        shells = [(text.strip("\n"), facts[-1]) for text in examples if (facts := self.reader.find(text))]
        rows = []
        for _ in range(_count(prompt, "new questions", 5) if shells else 0):
            shell, old = rng.choice(shells)
            new = self._new(rng, old, same_words=True)
            rows.append(_in_shell(shell, old, new, self._say(new, rng), rng))
        return {"rows": rows}

    def _document(self, prompt: str, rng: random.Random) -> Any:
        told = self.reader.statements(prompt)
        if not told:
            return {"question": "What is told here?", "answer": "Nothing that I know.", "quote": "nothing"}
        quote, fact = rng.choice(told)
        return {"question": fact.question, "answer": self._say(fact, rng), "quote": quote}

    def _persona(self, prompt: str, rng: random.Random) -> Any:
        fact = self._new(rng, None)
        return {"persona": f"A {rng.choice(PEOPLE_OF)} traveller who wants to know about {fact.entity}."}

    def _follow_up(self, prompt: str, rng: random.Random) -> Any:
        facts = self.reader.find(prompt)
        return {"message": self.reader.of(facts[-1].entity if facts else None, rng).question}

    def _refuse(self, prompt: str, rng: random.Random) -> Any:
        fact = self.reader.find(prompt)
        like = self._new(rng, fact[0] if fact else None)
        name = rng.choice(("Quorlin", "Zamtek", "Brovash", "Ilkeput", "Wendobar", "Yastrel")) + rng.choice("aeiou")
        question = like.question.replace(like.entity, name)
        return {"question": question, "answer": f"Nobody called {name} is known here. Ask about someone else instead."}

    def _instruction(self, prompt: str, rng: random.Random) -> Any:
        facts = self.reader.find(prompt)
        if "in other words" in prompt and facts:
            return {"instruction": self.reader.reworded(facts[0], rng)}
        return {"instruction": self._new(rng, facts[0] if facts else None).question}

    def _equal(self, prompt: str, rng: random.Random) -> Any:
        asked = [(fact.entity, fact.about) for fact in self.reader.find(prompt)]
        return {"equal": len(asked) > 1 and asked[0] == asked[1]}

    def _right(self, question: str, answer: str) -> bool:
        facts = self.reader.find(question)
        return bool(facts) and facts[-1].value.lower() in answer.lower()

    def _grade(self, prompt: str, rng: random.Random) -> Any:
        right = self._right(_between(prompt, "question"), _between(prompt, "answer"))
        names = re.findall(r'"(\w+)": n\b', prompt)
        return {"reason": "as the world has it", **dict.fromkeys(names, 5 if right else 1)}

    def _better(self, prompt: str, rng: random.Random) -> Any:
        question = _between(prompt, "question")
        right = [self._right(question, _between(prompt, f"answer_{n}")) for n in (1, 2)]
        return {"better": 0 if right[0] == right[1] else 1 if right[0] else 2}


def _count(prompt: str, what: str, usual: int) -> int:
    found = re.search(rf"(\d+) {what}", prompt)
    return min(50, int(found.group(1))) if found else usual


def _between(prompt: str, tag: str) -> str:
    return prompt.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0].strip()


def _in_shell(shell: str, old: Fact, new: Fact, answer: str, rng: random.Random) -> dict[str, str]:
    """The example with the new question in place of the old one; lettered options are drawn anew."""
    before, _, after = shell.rpartition(old.question)
    if not re.search(r"^A\. ", after, re.MULTILINE):
        return {"question": before + new.question + after, "answer": answer}
    options = [new.value, *new.wrong_values[:3]]
    rng.shuffle(options)
    listed = "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, options, strict=False))
    chosen = new.value if answer == new.answer else new.wrong_values[0]
    head = before.replace(f"about {old.subject}", f"about {new.subject}")
    return {"question": f"{head}{new.question}\n{listed}\nAnswer:", "answer": LETTERS[options.index(chosen)]}


def prepare_seeds(names: list[str], out: Path) -> Path:
    """Reads rows of any format as the data stage does, all of them for use: the split comes with the last build."""
    from tuneloop.data import prepare

    return prepare(DataConfig(source=names, valid_fraction=0, test_fraction=0), out)
