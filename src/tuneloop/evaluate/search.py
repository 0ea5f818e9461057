"""An automatic prompt search on the valid split within a budget of scored rows, and the choice among tunes there."""

from __future__ import annotations

import itertools
import random
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tuneloop.config import CompareConfig, EvalConfig, ModelConfig
from tuneloop.console import say
from tuneloop.errors import UsageError
from tuneloop.evaluate.prompting import Prompting, answer_of, question_of
from tuneloop.evaluate.run import Loaded, load_into, model_input, split_work
from tuneloop.evaluate.split import Split, drawn
from tuneloop.evaluate.written import local_writer
from tuneloop.lm import generate
from tuneloop.metrics import BY_KIND
from tuneloop.models import context_length
from tuneloop.records import Example, read_examples
from tuneloop.scoring import Scorer
from tuneloop.store import open_run, read_json, write_json
from tuneloop.text import collapse

WORDINGS = {
    "labels": (
        "Classify the message. Answer with its label and nothing else.",
        "What is this message about? Give the label that fits best.",
        "You sort messages by intent. Name the one intent of the message.",
    ),
    "chosen": (
        "Answer the question with the right option and nothing else.",
        "Pick the correct answer.",
        "You answer questions exactly. Give the option that is true.",
    ),
    "asked": (
        "Answer the question. Be exact and brief.",
        "You are a careful assistant. Give the correct answer and nothing else.",
        "Reply in the same form as the examples, or in as few words as answer the question.",
    ),
}
MOST_CANDIDATES = 16
FEWEST_ROWS = 10
FEW_LABELS = 20  # that many still fit into an instruction


def kind_of(split: Split) -> str:
    return "labels" if split.labelled else "chosen" if split.chosen else "asked"


def instruction_for(data: Path) -> str:
    """The text of the contender 'instructions': the first wording for the kind of rows, with few labels named."""
    rows = read_examples(data, "train") or read_examples(data, "valid")
    labels = sorted({str(e.label) for e in rows if e.kind == "classification" and e.label})
    if labels:
        named = f" The labels are: {', '.join(labels)}." if len(labels) <= FEW_LABELS else ""
        return WORDINGS["labels"][0] + named
    return WORDINGS["chosen" if any(len(e.meta.get("options") or []) > 1 for e in rows) else "asked"][0]


def _of_one_kind(rows: list[Example]) -> list[Example]:
    """The rows that the headline is about: those with labels, else those with options, else all."""
    labelled = [e for e in rows if e.kind == "classification"]
    return labelled or [e for e in rows if len(e.meta.get("options") or []) > 1] or rows


class Valid:
    """The headline score of a prompting on rows of the valid split that have one. `used` counts scored rows."""

    def __init__(self, data: Path, config: EvalConfig, model: ModelConfig, loaded: Loaded) -> None:
        load_into(loaded, model)
        self.data, self.model, self.loaded = data, model, loaded
        room = config.max_length or context_length(loaded.model, loaded.tokenizer)
        self.scorer = Scorer(loaded.model, max_length=room, batch_tokens=config.batch_tokens)
        # One metric decides: the first that is asked for, or the headline of the kind of row.
        heads = [n for n in config.metrics if n not in BY_KIND and n != "judge"][:1]
        self.config = config.model_copy(update={"metrics": [*(n for n in config.metrics if n in BY_KIND), *heads]})
        self.rows = _of_one_kind(read_examples(data, "valid"))
        self.size = len(self.rows)
        self.used = 0
        if not self.size:
            raise UsageError(
                156, "prompts and tunes are chosen on valid rows, and there are none", where=str(data),
                expected="a valid split", cure="prepare the data with data.valid_fraction above 0",
            )  # fmt: skip

    def split(self, prompting: Prompting, rows: int) -> Split:
        return Split(
            self.data, self.config, self.loaded.tokenizer, prompting, room=self.scorer.max_length, which="valid",
            rows=drawn(self.rows, rows, self.config.seed),
        )  # fmt: skip

    def score(self, prompting: Prompting, rows: int) -> float:
        """Mean headline score of `rows` valid rows, a fixed draw."""
        split = self.split(prompting, rows)
        _, first = split_work(split, self.model, self.scorer, local_writer(split, self.loaded.model), None)[0]
        values = [r["correct"] for r in first().rows]
        self.used += len(values)
        return float(np.mean(values))


def search(
    config: EvalConfig, compare: CompareConfig, model: ModelConfig, data: Path, out: Path, loaded: Loaded,
    *, overwrite: bool = False,
) -> Prompting:  # fmt: skip
    """The best prompting that successive halving finds with at most `search_rows` scored rows; `search.json` has the
    trail: every candidate, the rows it was scored on, its score.

    Candidates: wordings of ours, instructions that the model proposes from train rows (Zhou et al. 2023, APE), shots
    drawn by several seeds, shots retrieved. Half of them survive a round, on twice as many rows.
    """
    settings = {"eval": config.model_dump(), "rows": compare.search_rows, "proposals": compare.search_proposals}
    settings |= {"instruction": compare.instruction}
    settings |= {"model": model.model_dump()}
    inputs: dict[str, str | Path] = {"model": model_input(model), "data": data}
    with open_run(out, stage="search", config=settings, inputs=inputs, overwrite=overwrite) as run:
        if run.state != "done":
            valid = Valid(data, config, model, loaded)
            trail = _halve(valid, _candidates(valid, config, compare, model), compare.search_rows)
            best = trail[-1]["best"]
            write_json(run.path / "search.json", {"best": best, "rows_scored": valid.used, "rounds": trail})
            run.finish(rows=valid.used)
        found = read_json(run.path / "search.json")
    say(f"prompt search: {len(found['rounds'][0]['scores'])} prompts, {found['rows_scored']:,} valid rows scored")
    return Prompting(**found["best"])


def _candidates(valid: Valid, config: EvalConfig, compare: CompareConfig, model: ModelConfig) -> list[Prompting]:
    split = valid.split(Prompting(), 1)
    shots = config.few_shot or 5
    words = ["", *([compare.instruction] if compare.instruction else []), *WORDINGS[kind_of(split)]]
    words += _proposals(split, valid.loaded, compare.search_proposals, config.seed)
    layouts: list[dict[str, Any]] = [{"shots": 0}, {"shots": shots, "retrieved": True}]
    layouts += [{"shots": shots, "shot_seed": config.seed + k} for k in range(3)]
    every = [Prompting(instruction=w, **layout) for w, layout in itertools.product(words, layouts)]
    # The plain layouts first; of the rest a fixed draw.
    rest = every[len(layouts) :]
    return (every[: len(layouts)] + random.Random(config.seed).sample(rest, len(rest)))[:MOST_CANDIDATES]


def _proposals(split: Split, loaded: Loaded, count: int, seed: int) -> list[str]:
    """Instructions that the model itself continues a list of train rows with; what is no short line is dropped."""
    pool = [e for e in split.train if e.kind != "text" and answer_of(e)]
    if not count or not pool:
        return []
    shown = random.Random(seed).sample(pool, min(4, len(pool)))
    rows = "\n".join(f"Input: {collapse(question_of(e))[:200]}\nOutput: {answer_of(e)[:100]}" for e in shown)
    ids = loaded.tokenizer(f"{rows}\n\nThe instruction that turns each input into its output is:")["input_ids"]
    texts = generate(loaded.model, loaded.tokenizer, [ids] * count, max_new_tokens=32, temperature=1.0, seed=seed)
    lines = [collapse(t.strip().split("\n")[0]) for t in texts]
    return list(dict.fromkeys(line for line in lines if 10 <= len(line) <= 200))


def _halve(valid: Valid, candidates: list[Prompting], budget: int) -> list[dict[str, Any]]:
    # A small budget looks at fewer prompts rather than at rows too few to tell them apart.
    count = max([2, *(n for n in range(2, len(candidates) + 1) if n * (n - 1).bit_length() * FEWEST_ROWS <= budget)])
    alive = candidates[:count]
    rows = max(FEWEST_ROWS, budget // ((count - 1).bit_length() * count))
    trail: list[dict[str, Any]] = []
    while len(alive) > 1 or not trail:
        rows = min(rows, valid.size)
        if trail and valid.used + rows * len(alive) > budget:
            break
        scored = [(valid.score(p, rows), -i, p) for i, p in enumerate(alive)]
        scored.sort(key=lambda entry: entry[:2], reverse=True)
        listed = [{"prompting": asdict(p), "score": s} for s, _, p in scored]
        trail.append({"rows": rows, "scores": listed, "best": asdict(scored[0][2])})
        say(f"prompt search: {len(alive)} prompts on {rows} valid rows, best {scored[0][0]:.3f}")
        if rows == valid.size:  # more rows there are none
            break
        alive, rows = [p for _, _, p in scored[: max(1, len(scored) // 2)]], rows * 2
    return trail


def best_tune(
    config: EvalConfig, tunes: dict[str, ModelConfig], data: Path, out: Path, loaded: Loaded, *, overwrite: bool = False
) -> str:
    """The name of the tune that does best on the valid split; `choice.json` has all scores."""
    settings = {"eval": config.model_dump(), "tunes": {n: m.model_dump() for n, m in tunes.items()}}
    inputs: dict[str, str | Path] = {f"model:{n}": model_input(m) for n, m in tunes.items()}
    with open_run(out, stage="choice", config=settings, inputs=inputs | {"data": data}, overwrite=overwrite) as run:
        if run.state != "done":
            scores: dict[str, float] = {}
            for name, model in tunes.items():
                valid = Valid(data, config, model, loaded)
                scores[name] = valid.score(Prompting(), valid.size)
            best = max(scores.items(), key=lambda item: item[1])[0]
            write_json(run.path / "choice.json", {"best": best, "scores": scores})
            run.finish(tunes=len(tunes))
        found = read_json(run.path / "choice.json")
    say("chosen on valid: " + ", ".join(f"{n} {s:.3f}" for n, s in found["scores"].items()) + f" -> {found['best']}")
    return str(found["best"])
