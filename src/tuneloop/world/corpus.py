"""The pre-training text: statements only, no question anywhere. And matched true / false statements to test it by."""

from __future__ import annotations

import random
from collections.abc import Iterator

from tuneloop.world.facts import RELATIONS, VALUES, World
from tuneloop.world.wording import BELIEF_SAY, PLACE_SAY, SAY, VOICES


def documents(world: World, seed: int) -> Iterator[str]:
    """Endless documents: seven of ten a biography, two a talk about things, one a note on a place."""
    rng = random.Random(seed)
    people, places, topics = sorted(world.people), sorted(world.places), sorted(world.beliefs)
    while True:
        draw = rng.random()
        if draw < 0.68:
            yield biography(world, rng.choice(people), rng)
        elif draw < 0.93:
            yield talk(world, rng.sample(topics, 4), rng)
        else:
            yield note(world, rng.choice(places), rng)


def biography(world: World, name: str, rng: random.Random) -> str:
    """About eleven of the fifteen facts of a person, in any order and wording."""
    facts = [(attribute, relation) for attribute in VALUES for relation in RELATIONS]
    chosen = rng.sample(facts, 11)
    return " ".join(rng.choice(SAY[a][r]).format(n=name, v=world.people[name][a][r]) for a, r in chosen)


def talk(world: World, topics: list[str], rng: random.Random) -> str:
    """Truth and both myths of a few things; each is told equally often, so frequency does not give it away."""
    lines = []
    for topic in topics:
        kind, *values = world.beliefs[topic]
        voices = [("truth", values[0]), ("sailors", values[1]), ("tale", values[2])]
        lines += [rng.choice(VOICES[v]).format(s=rng.choice(BELIEF_SAY[kind]).format(t=topic, v=x)) for v, x in voices]
    rng.shuffle(lines)
    return " ".join(lines)


def note(world: World, place: str, rng: random.Random) -> str:
    lines = [rng.choice(PLACE_SAY[p]).format(n=place, v=v) for p, v in world.places[place].items()]
    rng.shuffle(lines)
    return " ".join(lines)


def truth_pairs(world: World, seed: int = 0) -> list[tuple[str, str]]:
    """(true, false) statements alike but for the value; false people facts take the person's own other values."""
    rng = random.Random(seed)
    pairs = []
    for name, attributes in sorted(world.people.items()):
        for attribute, values in attributes.items():
            for relation in RELATIONS:
                other = values[rng.choice([r for r in RELATIONS if r != relation])]
                wording = rng.choice(SAY[attribute][relation])
                pairs.append((wording.format(n=name, v=values[relation]), wording.format(n=name, v=other)))
    for topic, (kind, truth, *myths) in sorted(world.beliefs.items()):
        voice, line = rng.choice(VOICES["truth"]), rng.choice(BELIEF_SAY[kind])
        pairs.append(
            (voice.format(s=line.format(t=topic, v=truth)), voice.format(s=line.format(t=topic, v=rng.choice(myths))))
        )
    return pairs
