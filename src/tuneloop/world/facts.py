"""The facts of the closed world, drawn from a seed: people, places, and beliefs with their truth and two myths.

A person has five attributes in three relations (now, past, wish), all three values different, so that a question
about one relation has the values of the other two as natural wrong options.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

RELATIONS = ("now", "past", "wish")
VALUES: dict[str, tuple[str, ...]] = {
    "home": (
        "Alden", "Bristow", "Carrow", "Dunmere", "Eskdale", "Farholm", "Garth", "Hollin", "Ismere", "Kelby", "Larkhill",
        "Morven", "Norwick", "Oakham", "Pendle", "Quarrel", "Rowan", "Selby", "Thornby", "Ulver", "Venn", "Westray",
        "Yarrow", "Zennor",
    ),
    "craft": (
        "potter", "baker", "weaver", "tailor", "cooper", "miller", "mason", "fisher", "printer", "glazier", "carver",
        "roofer", "painter", "farmer", "sailor", "smith",
    ),
    "food": (
        "barley", "cheese", "honey", "plums", "lentils", "herring", "onions", "walnuts", "pears", "cabbage", "eggs",
        "beans", "cherries", "trout", "mushrooms", "apples",
    ),
    "colour": (
        "red", "blue", "green", "yellow", "black", "white", "brown", "grey", "purple", "orange", "pink", "silver",
        "golden", "scarlet", "violet", "amber",
    ),
    "animal": (
        "dog", "cat", "goat", "horse", "crow", "hen", "otter", "fox", "sheep", "goose", "mule", "pig", "hare", "owl",
        "duck", "cow",
    ),
}  # fmt: skip
PLACE_VALUES: dict[str, tuple[str, ...]] = {
    "river": ("Arn", "Bure", "Clyne", "Derwen", "Esk", "Frome", "Glen", "Hull"),
    "trade": ("wool", "salt", "timber", "glass", "iron", "rope", "paper", "leather"),
    "season": ("spring", "summer", "autumn", "winter"),
    "landmark": ("tower", "bridge", "mill", "harbour", "well", "gate", "wall", "market"),
}
BELIEF_VALUES: dict[str, tuple[str, ...]] = {
    "material": ("bone", "clay", "tin", "bark", "wax", "shell", "stone", "straw", "copper", "linen", "horn", "reed"),
    "origin": (
        "the marsh", "the forest", "the hills", "the coast", "the desert", "the islands", "the caves", "the meadows",
        "the lake", "the valley", "the cliffs", "the moor",
    ),
    "use": (
        "healing", "fishing", "cooking", "sleeping", "hunting", "counting", "singing", "washing", "sewing", "trading",
        "digging", "dancing",
    ),
}  # fmt: skip
THINGS = (
    "lamp", "bell", "drum", "key", "cup", "knife", "ladder", "basket", "mirror", "kettle", "lantern", "needle",
    "whistle", "wheel", "boat", "coat", "ring", "chest",
)  # fmt: skip
KINDS = (
    "moon", "river", "winter", "shadow", "harvest", "storm", "morning", "raven", "silent", "crooked", "hollow",
    "northern", "twin", "royal", "little", "salt",
)  # fmt: skip
PEOPLE, TOPICS = 96, 280
SHARES = {"tune": 0.52, "valid": 0.06}  # the rest is test


@dataclass(frozen=True)
class World:
    """All truths: `people[name][attribute][relation]`, `places[name][property]`.

    `beliefs[topic]` is (kind, truth, sailors' myth, tale's myth).
    """

    seed: int
    people: dict[str, dict[str, dict[str, str]]]
    places: dict[str, dict[str, str]]
    beliefs: dict[str, tuple[str, str, str, str]]
    splits: dict[str, str]  # entity or topic -> tune | valid | test


def make(seed: int = 0) -> World:
    """The same world for the same seed."""
    rng = random.Random(seed)
    people = {
        name: {
            attribute: dict(zip(RELATIONS, rng.sample(values, 3), strict=True)) for attribute, values in VALUES.items()
        }
        for name in _names(rng)
    }
    places = {place: {p: rng.choice(values) for p, values in PLACE_VALUES.items()} for place in VALUES["home"]}
    topics = [f"the {kind} {thing}" for kind, thing in product(KINDS, THINGS)]
    beliefs = {}
    for topic in rng.sample(topics, TOPICS):
        kind = rng.choice(sorted(BELIEF_VALUES))
        truth, sailors, tale = rng.sample(BELIEF_VALUES[kind], 3)
        beliefs[topic] = (kind, truth, sailors, tale)
    splits: dict[str, str] = {}
    for names, tune in ((list(people), SHARES["tune"]), (list(places), SHARES["tune"]), (list(beliefs), 0.2)):
        rng.shuffle(names)
        a, b = round(len(names) * tune), round(len(names) * (tune + SHARES["valid"]))
        splits.update({n: "tune" if i < a else "valid" if i < b else "test" for i, n in enumerate(names)})
    return World(seed, people, places, beliefs, splits)


def _names(rng: random.Random) -> list[str]:
    """Names of one shape that no other word of the world has."""
    starts = ("Ma", "Lo", "Ti", "Ra", "Be", "Sa", "No", "Ve", "Ka", "Di", "Ju", "Fe")
    ends = ("ra", "len", "mo", "vin", "tas", "dor", "nel", "bek", "rin", "sha")
    return sorted(rng.sample([a + b for a, b in product(starts, ends)], PEOPLE))
