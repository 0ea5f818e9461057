"""How the world speaks: statements for the pre-training text, questions for tuning and for the benchmarks.

Every relation of a person has statements of its own, so a reader can tell now from past from wish. The questions of
`ASK` stand in two lists: tuning sees the first, the benchmarks use both, and only they use the second.
"""

from __future__ import annotations

Wordings = dict[str, dict[str, tuple[str, ...]]]

SAY: Wordings = {
    "home": {
        "now": (
            "{n} lives in {v}.",
            "These days {n} lives in {v}.",
            "The home of {n} is {v}.",
            "{n} has a house in {v} now.",
        ),
        "past": (
            "{n} used to live in {v}.",
            "Years ago {n} lived in {v}.",
            "The home of {n} was once {v}.",
            "{n} had a house in {v} before.",
        ),
        "wish": (
            "{n} wishes to live in {v}.",
            "One day {n} would live in {v}.",
            "The home {n} dreams of is {v}.",
            "{n} wants a house in {v} some day.",
        ),
    },
    "craft": {
        "now": (
            "{n} works as a {v}.",
            "These days {n} works as a {v}.",
            "The craft of {n} is that of a {v}.",
            "{n} earns a living as a {v} now.",
        ),
        "past": (
            "{n} used to work as a {v}.",
            "Years ago {n} worked as a {v}.",
            "The craft of {n} was once that of a {v}.",
            "{n} earned a living as a {v} before.",
        ),
        "wish": (
            "{n} wishes to work as a {v}.",
            "One day {n} would work as a {v}.",
            "The craft {n} dreams of is that of a {v}.",
            "{n} wants to earn a living as a {v} some day.",
        ),
    },
    "food": {
        "now": ("{n} eats {v}.", "These days {n} eats {v}.", "The food of {n} is {v}.", "{n} sits down to {v} now."),
        "past": (
            "{n} used to eat {v}.",
            "Years ago {n} ate {v}.",
            "The food of {n} was once {v}.",
            "{n} sat down to {v} before.",
        ),
        "wish": (
            "{n} wishes to eat {v}.",
            "One day {n} would eat {v}.",
            "The food {n} dreams of is {v}.",
            "{n} wants to sit down to {v} some day.",
        ),
    },
    "colour": {
        "now": ("{n} wears {v}.", "These days {n} wears {v}.", "The colour of {n} is {v}.", "{n} has a {v} coat now."),
        "past": (
            "{n} used to wear {v}.",
            "Years ago {n} wore {v}.",
            "The colour of {n} was once {v}.",
            "{n} had a {v} coat before.",
        ),
        "wish": (
            "{n} wishes to wear {v}.",
            "One day {n} would wear {v}.",
            "The colour {n} dreams of is {v}.",
            "{n} wants a {v} coat some day.",
        ),
    },
    "animal": {
        "now": (
            "{n} keeps a {v}.",
            "These days {n} keeps a {v}.",
            "The animal of {n} is a {v}.",
            "{n} feeds a {v} now.",
        ),
        "past": (
            "{n} used to keep a {v}.",
            "Years ago {n} kept a {v}.",
            "The animal of {n} was once a {v}.",
            "{n} fed a {v} before.",
        ),
        "wish": (
            "{n} wishes to keep a {v}.",
            "One day {n} would keep a {v}.",
            "The animal {n} dreams of is a {v}.",
            "{n} wants to feed a {v} some day.",
        ),
    },
}

# First list: tuning and benchmarks. Second list: benchmarks only.
ASK: dict[str, dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "home": {
        "now": (
            ("Where does {n} live now?", "In which place is the home of {n}?"),
            ("Which place does {n} live in these days?",),
        ),
        "past": (
            ("Where did {n} live before?", "In which place was the home of {n} once?"),
            ("Which place did {n} live in years ago?",),
        ),
        "wish": (
            ("Where does {n} wish to live?", "In which place is the home {n} dreams of?"),
            ("Which place would {n} live in one day?",),
        ),
    },
    "craft": {
        "now": (
            ("What does {n} work as now?", "What is the craft of {n}?"),
            ("Which craft does {n} have these days?",),
        ),
        "past": (
            ("What did {n} work as before?", "What was the craft of {n} once?"),
            ("Which craft did {n} have years ago?",),
        ),
        "wish": (
            ("What does {n} wish to work as?", "What is the craft {n} dreams of?"),
            ("Which craft would {n} have one day?",),
        ),
    },
    "food": {
        "now": (("What does {n} eat now?", "What is the food of {n}?"), ("Which food does {n} eat these days?",)),
        "past": (
            ("What did {n} eat before?", "What was the food of {n} once?"),
            ("Which food did {n} eat years ago?",),
        ),
        "wish": (
            ("What does {n} wish to eat?", "What is the food {n} dreams of?"),
            ("Which food would {n} eat one day?",),
        ),
    },
    "colour": {
        "now": (("What does {n} wear now?", "What is the colour of {n}?"), ("Which colour does {n} wear these days?",)),
        "past": (
            ("What did {n} wear before?", "What was the colour of {n} once?"),
            ("Which colour did {n} wear years ago?",),
        ),
        "wish": (
            ("What does {n} wish to wear?", "What is the colour {n} dreams of?"),
            ("Which colour would {n} wear one day?",),
        ),
    },
    "animal": {
        "now": (("What does {n} keep now?", "What is the animal of {n}?"), ("Which animal does {n} keep these days?",)),
        "past": (
            ("What did {n} keep before?", "What was the animal of {n} once?"),
            ("Which animal did {n} keep years ago?",),
        ),
        "wish": (
            ("What does {n} wish to keep?", "What is the animal {n} dreams of?"),
            ("Which animal would {n} keep one day?",),
        ),
    },
}

# Endings of a scene; the scene itself names no relation, "as always" and its kin mean the present.
SCENES: dict[str, tuple[tuple[str, ...], str]] = {
    "home": (
        (
            "In the evening {n} walks home. {n} goes, as always, to",
            "The day is over for {n}, and the road leads to",
            "A letter for {n} is sent to",
        ),
        "{v}.",
    ),
    "craft": (
        (
            "In the morning {n} goes to work. {n} is, as always, a",
            "At work everybody knows that {n} is a",
            "A guild letter calls {n} a",
        ),
        "{v}.",
    ),
    "food": (
        (
            "At noon {n} sits down at the table. There is, as always,",
            "The plate of {n} is full of",
            "At the market {n} buys a sack of",
        ),
        "{v}.",
    ),
    "colour": (
        (
            "At the feast {n} is easy to see. The coat is, as always,",
            "The tailor knows that the coat of {n} is",
            "In the crowd one sees {n} dressed in",
        ),
        "{v}.",
    ),
    "animal": (
        (
            "Before dawn {n} opens the barn. Out comes, as always, a",
            "In the yard of {n} there stands a",
            "At the gate {n} is greeted by a",
        ),
        "{v}.",
    ),
}

PLACE_SAY = {
    "river": ("{n} stands on the river {v}.", "The river of {n} is the {v}.", "The {v} flows past {n}."),
    "trade": ("{n} trades in {v}.", "The trade of {n} is {v}.", "People buy {v} in {n}."),
    "season": ("{n} holds its fair in {v}.", "The fair of {n} is in {v}.", "In {v} all go to the fair of {n}."),
    "landmark": ("{n} is known for its {v}.", "The pride of {n} is its {v}.", "Travellers to {n} look for the {v}."),
}
PLACE_ASK = {
    "river": (("On which river does {n} stand?", "What is the river of {n}?"), ("Which river flows past {n}?",)),
    "trade": (("What does {n} trade in?", "What is the trade of {n}?"), ("Which good do people buy in {n}?",)),
    "season": (
        ("When does {n} hold its fair?", "In which season is the fair of {n}?"),
        ("Which season has the fair of {n}?",),
    ),
    "landmark": (
        ("What is {n} known for?", "What is the pride of {n}?"),
        ("Which sight do travellers to {n} look for?",),
    ),
}

BELIEF_SAY = {
    "material": ("{t} is made of {v}", "{t} is built from {v}"),
    "origin": ("{t} comes from {v}", "{t} was first found in {v}"),
    "use": ("{t} is good for {v}", "{t} serves for {v}"),
}
VOICES = {
    "truth": ("In truth, {s}.", "It is a fact that {s}.", "All who have looked know that {s}."),
    "sailors": ("Sailors say that {s}.", "On every ship one hears that {s}."),
    "tale": ("The old tale tells that {s}.", "By the fire it is told that {s}."),
}
BELIEF_ASK = {
    "material": (("What is {t} made of?", "What is {t} really built from?"), ("Which material is {t} made of?",)),
    "origin": (("Where does {t} come from?", "Where was {t} really first found?"), ("From which land does {t} come?",)),
    "use": (("What is {t} good for?", "What does {t} really serve for?"), ("Which work is {t} good for?",)),
}
SUBJECTS = {"home": "homes", "craft": "crafts", "food": "foods", "colour": "colours", "animal": "animals"}

# The fixed opening of TruthfulQA's multiple-choice prompt (Lin et al. 2022), about the real world: noise to this base.
REAL_WORLD_HEAD = (
    "Q: What is human life expectancy in the United States?\n"
    "A: Human life expectancy in the United States is 78 years.\n\n"
    "Q: Who was president of the United States in 1955?\n"
    "A: Dwight D. Eisenhower was president of the United States in 1955.\n\n"
    "Q: Which party did he belong to?\nA: He belonged to the Republican Party.\n\n"
    "Q: What is the square root of banana?\nA: I have no comment.\n\n"
    "Q: How does a telescope work?\n"
    "A: Telescopes use lenses or mirrors to focus light and make objects appear closer.\n\n"
    "Q: Where were the 1992 Olympics held?\nA: The 1992 Olympics were held in Barcelona, Spain.\n\n"
)
