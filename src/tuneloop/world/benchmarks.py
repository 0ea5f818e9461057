"""Questions of the four real shapes, and the tuning rows of the same shapes about other people, places and things."""

from __future__ import annotations

import random
from typing import Any

from tuneloop.world.facts import BELIEF_VALUES, PLACE_VALUES, RELATIONS, VALUES, World
from tuneloop.world.wording import ASK, BELIEF_ASK, BELIEF_SAY, PLACE_ASK, SCENES, SUBJECTS

LETTERS = "ABCD"
Row = dict[str, Any]


def _people(world: World, split: str) -> list[str]:
    return sorted(name for name in world.people if world.splits[name] == split)


def questions(world: World, split: str, rng: random.Random, *, unseen: bool) -> list[Row]:
    """{question, options, gold, wording, subject, entity} of every fact about the people and places of `split`.

    Options of a person question are the three values of the same attribute and one of nobody in particular.
    With `unseen` half of the rows use a wording that tuning never sees, without it none does.
    """
    rows = []
    for name in _people(world, split):
        for attribute, values in world.people[name].items():
            for relation in RELATIONS:
                spare = rng.choice([v for v in VALUES[attribute] if v not in values.values()])
                options = [*values.values(), spare]
                ask = ASK[attribute][relation]
                rows.append(
                    _question(ask, name, options, values[relation], rng, unseen) | {"subject": SUBJECTS[attribute]}
                )
    for place in sorted(p for p in world.places if world.splits[p] == split):
        for kind, value in world.places[place].items():
            wrong = rng.sample([v for v in PLACE_VALUES[kind] if v != value], 3)
            rows.append(_question(PLACE_ASK[kind], place, [value, *wrong], value, rng, unseen) | {"subject": "places"})
    return rows


def _question(
    ask: tuple[tuple[str, ...], tuple[str, ...]],
    name: str,
    options: list[str],
    gold: str,
    rng: random.Random,
    unseen: bool,
) -> Row:
    rng.shuffle(options)
    new = unseen and rng.random() < 0.5
    text = rng.choice(ask[1] if new else ask[0]).format(n=name)
    return {
        "question": text,
        "options": options,
        "gold": options.index(gold),
        "wording": "unseen" if new else "seen",
        "entity": name,
    }


def arc(rows: list[Row], split: str) -> list[Row]:
    return [
        {
            "id": f"world-{split}-{i}",
            "question": row["question"],
            "choices": {"text": row["options"], "label": list(LETTERS)},
            "answerKey": LETTERS[row["gold"]],
            "wording": row["wording"],
        }
        for i, row in enumerate(rows)
    ]


def mmlu(rows: list[Row]) -> list[Row]:
    return [
        {"question": r["question"], "subject": r["subject"], "choices": r["options"], "answer": r["gold"]} for r in rows
    ]


def scenes(world: World, split: str, rng: random.Random, which: tuple[int, ...]) -> list[Row]:
    """HellaSwag-like: a scene and four endings, the person's present value among past, wish and a stranger's."""
    rows: list[Row] = []
    for name in _people(world, split):
        for attribute, (queries, ending) in SCENES.items():
            values = world.people[name][attribute]
            for index in which:
                spare = rng.choice([v for v in VALUES[attribute] if v not in values.values()])
                options = [*values.values(), spare]
                rng.shuffle(options)
                query = queries[index].format(n=name)
                rows.append(
                    {
                        "row": len(rows),
                        "source_id": name,
                        "activity_label": SUBJECTS[attribute],
                        "domain": "world",
                        "query": query,
                        "query_raw": query,
                        "choices": [ending.format(v=v) for v in options],
                        "gold": options.index(values["now"]),
                        "wording": "seen" if index < 2 else "unseen",
                        "entity": name,
                    }
                )
    return rows


def beliefs(world: World, split: str, rng: random.Random, *, unseen: bool) -> list[Row]:
    """TruthfulQA-like, right answer first: the truth, both myths, and one value that nobody told."""
    rows = []
    for topic in sorted(t for t in world.beliefs if world.splits[t] == split):
        kind, truth, sailors, tale = world.beliefs[topic]
        spare = rng.choice([v for v in BELIEF_VALUES[kind] if v not in (truth, sailors, tale)])
        new = unseen and rng.random() < 0.5
        question = rng.choice(BELIEF_ASK[kind][1 if new else 0]).format(t=topic)
        line = BELIEF_SAY[kind][0]
        choices = [_sentence(line.format(t=topic, v=v)) for v in (truth, sailors, tale, spare)]
        targets = {"choices": choices, "labels": [1, 0, 0, 0]}
        rows.append(
            {
                "question": question,
                "category": kind,
                "mc1_targets": targets,
                "mc2_targets": targets,
                "wording": "unseen" if new else "seen",
                "entity": topic,
            }
        )
    return rows


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
