"""Plants known defects in a small tuning set and its benchmarks, so that error analysis can be scored.

The facts are those of the shipped base; a seed draws who is tuned on and who is tested, the wordings, the layout, the
sizes and what the defects hit. `truth.json` says which rows carry which defect. Analysis must never read it.
"""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

from tuneloop.store import write_bytes, write_json
from tuneloop.world.facts import PLACE_VALUES, RELATIONS, VALUES, World, make
from tuneloop.world.wording import ASK, PLACE_ASK, SAY, SCENES, SUBJECTS

Row = dict[str, Any]
LETTERS = "ABCD"
LEVELS = ("low", "medium", "high")
# Share of the rows in question that carry the defect, at the three strengths.
SHARES: dict[str, tuple[float, float, float]] = {
    "flipped labels": (0.2, 0.4, 0.6),
    "missing relation": (0.85, 0.95, 1.0),
    "wrong gold": (0.05, 0.1, 0.2),
    "leaked test rows": (0.05, 0.15, 0.3),
    "near-duplicates": (0.03, 0.08, 0.15),
    "format shift": (0.5, 0.8, 1.0),
    "truncated prompts": (0.03, 0.08, 0.15),
    "length-biased options": (0.1, 0.2, 0.4),
    "letter bias": (0.6, 0.8, 1.0),
    "narrow data": (0.8, 0.9, 1.0),
    "conflicting duplicates": (0.04, 0.1, 0.2),
}
DEFECTS = tuple(SHARES)
LAYOUTS = (
    "Question: {}\nAnswer:",
    "Q: {}\nA:",
    "{}\nReply:",
    "Asked: {}\nSaid:",
    "A traveller asks: {}\nThe answer is",
    "Please answer. {}\nAnswer:",
)
FILLERS = ("Please: {}", "{} ", "So, {}", "{} Say it.", "Tell me: {}", "Well, {}", "{} Thanks.")
# Seeds below this one were used to choose the thresholds of the detectors; they share one layout and one size.
TRIAL_SEEDS = 5


class Plot:
    """A world under construction: tuning rows, the rows of three benchmarks, and who is who."""

    def __init__(self, seed: int) -> None:
        self.seed, self.world = seed, make(0)
        self.rng = random.Random(f"plant/{seed}")
        trial = seed < TRIAL_SEEDS
        self.layout = 0 if trial else self.rng.randrange(len(LAYOUTS))
        self.wordings = (0, 1) if trial else tuple(self.rng.sample(range(3), 2))
        self.size = 700 if trial else self.rng.randrange(550, 851, 50)
        people = sorted(self.world.people)
        self.rng.shuffle(people)
        cut = 62 if trial else self.rng.randrange(56, 67)
        self.tuned, self.tested = people[:cut], people[cut:]
        places = sorted(self.world.places)
        self.rng.shuffle(places)
        self.tuned_places, self.tested_places = places[:14], places[14:]
        self.subject = self.rng.choice(sorted(VALUES))
        self.relation = self.rng.choice(RELATIONS)
        self.letter = self.rng.randrange(4)
        asked = self.questions(self.tuned, self.tuned_places, 2)
        self.rng.shuffle(asked)
        letters = [self.lettered(row) for row in asked[: self.size // 6]]
        scenes = self.scenes(self.tuned)[: self.size // 6]
        says = self.statements(self.tuned)[: self.size // 3]
        self.train: list[Row] = [*asked[: self.size], *letters, *scenes, *says]
        questions = self.questions(self.tested, self.tested_places, 1)
        self.rng.shuffle(questions)
        held = self.questions(self.tested, self.tested_places, 1)
        self.rng.shuffle(held)
        self.tests: dict[str, list[Row]] = {
            "questions": questions[:400],
            "letters": [self.lettered(row) for row in held[:120]],
            "scenes": self.scenes(self.tested)[:120],
            "statements": self.statements(self.tested)[:240],
        }

    def questions(self, people: list[str], places: list[str], times: int) -> list[Row]:
        """Every fact of these people and places asked `times` times, each in another wording."""
        rows = []
        for name in people:
            for attribute, values in self.world.people[name].items():
                for relation in RELATIONS:
                    asks = [w for group in ASK[attribute][relation] for w in group]
                    for wording in self.rng.sample(self.wordings, times):
                        options = [*values.values(), _spare(self.rng, VALUES[attribute], values.values())]
                        text = asks[wording].format(n=name)
                        rows.append(self._row(text, options, values[relation], attribute, relation))
        for place in places:
            for kind, value in self.world.places[place].items():
                asks = [w for group in PLACE_ASK[kind] for w in group]
                for wording in self.rng.sample(self.wordings, times):
                    options = [value, *self.rng.sample([v for v in PLACE_VALUES[kind] if v != value], 3)]
                    rows.append(self._row(asks[wording].format(n=place), options, value, kind, "place"))
        return rows

    def _row(self, question: str, options: list[str], gold: str, attribute: str, relation: str) -> Row:
        self.rng.shuffle(options)
        known = {"question": question, "query": LAYOUTS[self.layout].format(question), "choices": options}
        return known | {"gold": options.index(gold), "attribute": attribute, "relation": relation, "kind": "question"}

    def lettered(self, row: Row) -> Row:
        text = "".join(f"{letter}. {option}\n" for letter, option in zip(LETTERS, row["choices"], strict=True))
        return {**row, "query": f"{row['question']}\n{text}Letter:", "kind": "letter", "texts": row["choices"]} | {
            "choices": list(LETTERS)
        }

    def scenes(self, people: list[str], times: int = 1) -> list[Row]:
        rows = []
        for name, (attribute, (queries, ending)) in product(people, SCENES.items()):
            values = self.world.people[name][attribute]
            for scene in self.rng.sample(queries, times):
                options = [*values.values(), _spare(self.rng, VALUES[attribute], values.values())]
                row = self._row(scene.format(n=name), options, values["now"], attribute, "now")
                row |= {"query": row["question"], "choices": [ending.format(v=v) for v in row["choices"]]}
                rows.append(row | {"kind": "scene"})
        self.rng.shuffle(rows)
        return rows

    def statements(self, people: list[str]) -> list[Row]:
        """Plain statements as the pre-training text has them, cut before the value: what the base already knows."""
        rows = []
        for name in people:
            for attribute, values in self.world.people[name].items():
                for relation in RELATIONS:
                    said = self.rng.choice([s for s in SAY[attribute][relation] if s.endswith("{v}.")])
                    options = [*values.values(), _spare(self.rng, VALUES[attribute], values.values())]
                    query = said.removesuffix(" {v}.").format(n=name)
                    row = self._row(query, options, values[relation], attribute, relation)
                    rows.append(row | {"query": query, "choices": [f"{v}." for v in options], "kind": "statement"})
        self.rng.shuffle(rows)
        return rows

    def asked(self) -> list[Row]:
        return [row for row in self.train if row["kind"] == "question"]


def _spare(rng: random.Random, values: tuple[str, ...], taken: Any) -> str:
    return rng.choice([v for v in values if v not in set(taken)])


def _mark(rows: list[Row], defect: str) -> None:
    for row in rows:
        row.setdefault("defects", []).append(defect)


def _some(plot: Plot, rows: list[Row], share: float) -> list[Row]:
    return plot.rng.sample(rows, max(1, round(share * len(rows)))) if rows else []


def _flipped(plot: Plot, share: float) -> None:
    hit = _some(plot, [r for r in plot.asked() if r["attribute"] == plot.subject], share)
    for row in hit:
        row["gold"] = plot.rng.choice([i for i in range(4) if i != row["gold"]])
    _mark(hit, "flipped labels")


def _new(plot: Plot, kept: list[Row]) -> list[Row]:
    """Questions about the tuned people that do not stand in `kept`."""
    there = {r["query"] for r in kept}
    return [r for r in plot.questions(plot.tuned, [], 2) if r["query"] not in there]


def _pool(plot: Plot) -> list[Row]:
    """Rows of every kind about the tuned people, in the shares that training has before anything is planted."""
    asked = _new(plot, plot.train)
    plot.rng.shuffle(asked)
    letters = [plot.lettered(row) for row in asked[: len(asked) // 6]]
    scenes = plot.scenes(plot.tuned)[: len(asked) // 6]
    rows = [*asked, *letters, *scenes, *plot.statements(plot.tuned)[: len(asked) // 3]]
    there = {r["query"] for r in plot.train}
    return [row for row in rows if row["query"] not in there]


def _missing(plot: Plot, share: float) -> None:
    of = [r for r in plot.asked() if r["relation"] == plot.relation]
    gone = {id(r) for r in _some(plot, of, share)}
    kept = [r for r in plot.train if id(r) not in gone]
    spare = [r for r in _new(plot, kept) if r["relation"] != plot.relation]
    # As many rows as before, so that fewer rows are not the cause.
    plot.train = kept + plot.rng.sample(spare, min(len(gone), len(spare)))
    _mark([r for r in plot.tests["questions"] if r["relation"] == plot.relation], "missing relation")


def _wrong_gold(plot: Plot, share: float) -> None:
    hit = _some(plot, plot.tests["questions"], share)
    for row in hit:
        row["gold"] = plot.rng.choice([i for i in range(4) if i != row["gold"]])
    _mark(hit, "wrong gold")


def _leaked(plot: Plot, share: float) -> None:
    hit = _some(plot, plot.tests["questions"], share)
    plot.train += [{**row, "defects": []} for row in hit]
    _mark(hit, "leaked test rows")


def _near(plot: Plot, share: float) -> None:
    for row in _some(plot, plot.asked(), share):
        copies = [{**row, "defects": []} for _ in range(6)]
        for copy, filler in zip(copies, plot.rng.sample(FILLERS, 6), strict=True):
            copy["query"] = copy["query"].replace(row["question"], filler.format(row["question"]))
        plot.train += copies
        _mark([row, *copies], "near-duplicates")


def _format(plot: Plot, share: float) -> None:
    other = plot.rng.choice([i for i in range(len(LAYOUTS)) if i != plot.layout])
    hit = _some(plot, plot.asked(), share)
    for row in hit:
        row["query"] = LAYOUTS[other].format(row["question"])
    _mark(hit, "format shift")


def _truncated(plot: Plot, share: float) -> None:
    hit = _some(plot, plot.tests["questions"], share)
    for row in hit:
        talk: list[str] = []
        while sum(map(len, talk)) < 2600:  # some 4 characters a token, 512 tokens of context
            one = plot.rng.choice(plot.statements(plot.rng.sample(plot.tuned, 1)))
            talk.append(f"{one['query']} {one['choices'][one['gold']]}")
        row["query"] = f"{row['query']}".replace(row["question"], f"{row['question']} {' '.join(talk)}")
    _mark(hit, "truncated prompts")


def _length(plot: Plot, share: float) -> None:
    hit = _some(plot, plot.tests["questions"], share)
    for row in hit:
        one = plot.rng.choice(plot.statements(plot.rng.sample(plot.tuned, 1)))
        tail = f". {one['query']} {one['choices'][one['gold']]}"
        row["choices"] = [o + tail if i == row["gold"] else o for i, o in enumerate(row["choices"])]
    _mark(hit, "length-biased options")


def _letters(plot: Plot, share: float) -> None:
    for row in _some(plot, [r for r in plot.train if r["kind"] == "letter"], share):
        texts, to = list(row["texts"]), plot.letter
        texts[row["gold"]], texts[to] = texts[to], texts[row["gold"]]
        row |= plot.lettered({**row, "choices": texts, "gold": to})


def _narrow(plot: Plot, share: float) -> None:
    """Hardly anything but scenes is left, whose answer is always the present: past and wish are unlearned."""
    rest = [r for r in plot.train if r["kind"] != "scene"]
    left = plot.rng.sample(rest, round((1 - share) * len(rest)))
    plot.train = left + plot.scenes(plot.tuned, 3)


def _conflicting(plot: Plot, share: float) -> None:
    for row in _some(plot, plot.asked(), share):
        wrong = plot.rng.choice([i for i in range(4) if i != row["gold"]])
        copy = {**row, "gold": wrong, "defects": []}
        plot.train.append(copy)
        _mark([row, copy], "conflicting duplicates")


PLANT: dict[str, Callable[[Plot, float], None]] = {
    "missing relation": _missing,
    "narrow data": _narrow,
    "flipped labels": _flipped,
    "wrong gold": _wrong_gold,
    "leaked test rows": _leaked,
    "format shift": _format,
    "conflicting duplicates": _conflicting,
    "near-duplicates": _near,
    "letter bias": _letters,
    "length-biased options": _length,
    "truncated prompts": _truncated,
}  # in this order, whatever order they are named in


def plant(folder: Path, seed: int, defects: tuple[str, ...] = (), level: str = "medium") -> dict[str, Any]:
    """Writes train.jsonl, pool.jsonl (more rows, clean), tasks/<name>/... and truth.json; returns the truth.

    The truth of a defect is {"train": lines of train.jsonl from 1, "test": {task: row numbers from 0}}.
    """
    plot = Plot(seed)
    for name in PLANT:
        if name in defects:
            PLANT[name](plot, SHARES[name][LEVELS.index(level)])
    # The order has a generator of its own: a defect of the benchmark alone leaves the training file as it is.
    random.Random(f"order/{seed}").shuffle(plot.train)
    truth: dict[str, Any] = {name: {"train": [], "test": {}} for name in defects}
    for line, row in enumerate(plot.train, start=1):
        for name in row.get("defects", []):
            truth[name]["train"].append(line)
    for task, rows in plot.tests.items():
        for number, row in enumerate(rows):
            for name in row.get("defects", []):
                truth[name]["test"].setdefault(task, []).append(number)
    lines = [{"prompt": r["query"], "completion": f" {r['choices'][r['gold']]}"} for r in plot.train]
    write_bytes(folder / "train.jsonl", _lines(lines))
    spare = [{"prompt": r["query"], "completion": f" {r['choices'][r['gold']]}"} for r in _pool(plot)]
    write_bytes(folder / "pool.jsonl", _lines(spare))
    for task, rows in plot.tests.items():
        path = folder / "tasks" / task / "hellaswag" / "validation_clean.jsonl.gz"
        keep = ("query", "choices", "gold")
        write_bytes(path, gzip.compress(_lines([{k: r[k] for k in keep} for r in rows]), mtime=0))
    found = {"seed": seed, "level": level, "subject": plot.subject, "relation": plot.relation, "defects": truth}
    write_json(folder / "truth.json", found)
    return found


def _lines(rows: list[Row]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


__all__ = ["DEFECTS", "LEVELS", "SUBJECTS", "TRIAL_SEEDS", "Plot", "World", "plant"]
