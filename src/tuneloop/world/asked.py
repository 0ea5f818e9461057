"""Finds the world's questions and statements in any text, and their answers: the other way round from `wording`."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

from tuneloop.world.facts import BELIEF_VALUES, PLACE_VALUES, VALUES, World, make
from tuneloop.world.wording import ASK, BELIEF_ASK, BELIEF_SAY, PLACE_ASK, PLACE_SAY, SAY, SCENES, SUBJECTS, VOICES


@dataclass(frozen=True)
class Form:
    """A wording of a question: `template` with {n}, about (family, attribute, relation); `seen` where tuning has it."""

    family: str  # person | scene | place | belief
    about: tuple[str, str]
    template: str
    seen: bool

    @property
    def subject(self) -> str:
        return SUBJECTS[self.about[0]] if self.family in ("person", "scene") else "places"


@dataclass(frozen=True)
class Fact:
    """A question with its true answer as tuning rows have it, the bare value, and what is false."""

    form: Form
    entity: str
    question: str
    answer: str
    value: str
    wrong: tuple[str, ...]
    wrong_values: tuple[str, ...]

    @property
    def about(self) -> tuple[str, str]:
        return self.form.about

    @property
    def subject(self) -> str:
        return self.form.subject


def forms() -> list[Form]:
    """All wordings of all questions."""
    found = []
    for attribute, relations in ASK.items():
        for relation, sides in relations.items():
            found += [Form("person", (attribute, relation), t, not i) for i, side in enumerate(sides) for t in side]
    for attribute, (scenes, _) in SCENES.items():
        found += [Form("scene", (attribute, "now"), t, i < 2) for i, t in enumerate(scenes)]
    for family, table in (("place", PLACE_ASK), ("belief", BELIEF_ASK)):
        for kind, sides in table.items():
            found += [
                Form(family, (kind, ""), t.replace("{t}", "{n}"), not i) for i, side in enumerate(sides) for t in side
            ]
    return found


class Reader:
    """One world, by its seed."""

    def __init__(self, seed: int = 0) -> None:
        self.world: World = make(seed)
        self.forms = forms()
        self._entities = {
            "person": sorted(self.world.people), "scene": sorted(self.world.people),
            "place": sorted(self.world.places), "belief": sorted(self.world.beliefs),
        }  # fmt: skip
        self._tuned = {
            family: [name for name in names if self.world.splits[name] == "tune"]
            for family, names in self._entities.items()
        }
        self._patterns = [(form, self._pattern(form.template, form.family)) for form in self.forms]
        self._told = list(self._statements())

    def _pattern(self, template: str, family: str) -> re.Pattern[str]:
        names = "|".join(map(re.escape, self._entities[family]))
        before, after = template.split("{n}", 1)
        # A template may name its entity twice ("{n} goes, as always, to").
        rest = re.escape(after).replace(re.escape("{n}"), "(?P=name)")
        return re.compile(rf"{re.escape(before)}(?P<name>{names}){rest}")

    def find(self, text: str) -> list[Fact]:
        """The questions of the world in the order in which they stand."""
        found = []
        for form, pattern in self._patterns:
            found += [(match.start(), self.fact(form, match["name"])) for match in pattern.finditer(text)]
        return [fact for _, fact in sorted(found, key=lambda pair: pair[0])]

    def fact(self, form: Form, entity: str) -> Fact:
        question = form.template.format(n=entity)
        kind, relation = form.about
        if form.family == "belief":
            value, *wrong = self.world.beliefs[entity][1:]
            wrong += [v for v in BELIEF_VALUES[kind] if v not in (value, *wrong)][:1]
            line = BELIEF_SAY[kind][0]
            said = [_sentence(line.format(t=entity, v=v)) for v in (value, *wrong)]
        elif form.family == "place":
            value = self.world.places[entity][kind]
            wrong = [v for v in PLACE_VALUES[kind] if v != value]
            said = [value, *wrong]
        else:
            values = self.world.people[entity][kind]
            value = values[relation]
            spare = [v for v in VALUES[kind] if v not in values.values()]
            wrong = [v for name, v in values.items() if name != relation] + spare[:1]
            ending = SCENES[kind][1] if form.family == "scene" else "{v}"
            said = [ending.format(v=v) for v in (value, *wrong)]
        return Fact(form, entity, question, said[0], value, tuple(said[1:]), tuple(wrong))

    def another(self, rng: random.Random, like: Fact | None, *, same_words: bool = False) -> Fact:
        """About an entity of the tuned ones: after `like` of the same family and attribute, in its words if wanted."""
        if like is None:
            chosen = [form for form in self.forms if form.seen and form.family != "scene"]
        elif same_words:
            chosen = [like.form]
        else:
            chosen = [f for f in self.forms if f.seen and (f.family, f.about) == (like.form.family, like.about)]
        form = rng.choice(chosen)
        names = [n for n in self._tuned[form.family] if like is None or n != like.entity]
        return self.fact(form, rng.choice(names))

    def of(self, entity: str | None, rng: random.Random) -> Fact:
        """Another question about the same entity, if it may be asked about."""
        families = [f for f in ("person", "place", "belief") if entity in self._tuned[f]]
        if entity is None or not families:
            return self.another(rng, None)
        kinds = {self.world.beliefs[entity][0]} if families == ["belief"] else None
        chosen = [
            f for f in self.forms if f.seen and f.family == families[0] and (kinds is None or f.about[0] in kinds)
        ]
        return self.fact(rng.choice(chosen), entity)

    def reworded(self, fact: Fact, rng: random.Random) -> str:
        """The same question in another of the wordings that tuning has."""
        same = [f for f in self.forms if f.seen and (f.family, f.about) == (fact.form.family, fact.about)]
        others = [form for form in same if form != fact.form] or same
        return rng.choice(others).template.format(n=fact.entity)

    def _statements(self) -> Iterator[tuple[re.Pattern[str], Form]]:
        first: dict[tuple[str, tuple[str, str]], Form] = {}
        for form in self.forms:
            if form.seen:
                first.setdefault((form.family, form.about), form)
        for attribute, relations in SAY.items():
            for relation, lines in relations.items():
                for line in lines:
                    yield self._statement(line, "person"), first["person", (attribute, relation)]
        for kind, lines in PLACE_SAY.items():
            for line in lines:
                yield self._statement(line, "place"), first["place", (kind, "")]
        for kind, lines in BELIEF_SAY.items():
            for voice in VOICES["truth"]:
                for line in lines:
                    yield (
                        self._statement(voice.format(s=line.replace("{t}", "{n}")), "belief"),
                        first["belief", (kind, "")],
                    )

    def _statement(self, line: str, family: str) -> re.Pattern[str]:
        names = "|".join(map(re.escape, self._entities[family]))
        parts = {"{n}": rf"(?P<name>{names})", "{v}": r"(?P<value>[\w ]+?)"}
        split = re.split(r"(\{[nv]\})", line)
        return re.compile(r"(?<!\w)" + "".join(parts.get(part, re.escape(part)) for part in split))

    def statements(self, text: str) -> list[tuple[str, Fact]]:
        """True statements in the text, each with the question it answers."""
        found = []
        for pattern, form in self._told:
            for match in pattern.finditer(text):
                fact = self.fact(form, match["name"])
                if fact.value == match["value"]:
                    found.append((match.start(), match.group(), fact))
        return [(quote, fact) for _, quote, fact in sorted(found, key=lambda row: row[:2])]


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
