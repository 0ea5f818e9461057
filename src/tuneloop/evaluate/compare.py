"""Every contender on the same rows, each touching the test split once; one ranked table and a recommendation."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneloop.config import CompareConfig, EvalConfig
from tuneloop.console import say
from tuneloop.evaluate import paired
from tuneloop.evaluate.advice import break_even, recommend, usage
from tuneloop.evaluate.contenders import SEARCHES, Contender, check_names
from tuneloop.evaluate.paired import Scored
from tuneloop.evaluate.prompting import Prompting
from tuneloop.evaluate.run import Loaded, evaluate, model_input
from tuneloop.store import append_jsonl, open_run, read_json, read_jsonl, write_json

Entry = dict[str, Any]
LEDGER = "test_uses.jsonl"


def compare(
    config: EvalConfig,
    contenders: list[Contender],
    out: Path,
    *,
    settings: CompareConfig | None = None,
    data: Path | None = None,
    overwrite: bool = False,
    loaded: Loaded | None = None,
) -> Path:
    """Scores every contender: one scores folder each below `out`, and contenders.json; unchanged ones are not scored
    again, also with `overwrite`.

    `test_uses.jsonl` remembers every contender that was ever scored into `out`, also ones whose settings have changed
    since: the verdicts are corrected for all of them.
    """
    settings = settings or CompareConfig()
    contenders = sorted(contenders, key=lambda c: c.name != "base")  # what the others are compared with comes first
    names = [c.name for c in contenders]
    check_names(names)
    loaded, found = loaded or Loaded(), []
    listed: Entry = {
        "eval": config.model_dump(),
        "compare": settings.model_dump(),
        "contenders": [asdict(c) | {"model": c.model.model_dump()} for c in contenders],
    }
    own = {*names, *SEARCHES, LEDGER}
    with open_run(
        out, stage="compare", config=listed, inputs=_inputs(contenders, data), overwrite=overwrite, own=own
    ) as run:
        if run.state == "done":
            return out
        for one in contenders:
            say(f"-- {one.name}")
            folder = evaluate(
                config, one.model, out / one.name, data=data, contender=one.name, prompting=one.prompting,
                benchmarks=one.benchmarks, overwrite=overwrite, loaded=loaded,
            )  # fmt: skip
            _remember(out, one, folder)
            found.append(paired.read(one.name, folder))
        write_json(out / "contenders.json", summarise(contenders, found, settings, out, config.seed))
        run.finish(contenders=len(contenders), rows=sum(len(r) for one in found for r in one.rows.values()))
    return out


def _inputs(contenders: list[Contender], data: Path | None) -> dict[str, str | Path]:
    inputs: dict[str, str | Path] = {} if data is None else {"data": data}
    return inputs | {f"model:{one.name}": model_input(one.model) for one in contenders}


def _remember(out: Path, one: Contender, folder: Path) -> None:
    key = str(read_json(folder / "manifest.json")["key"])
    if key not in {line["key"] for line in _uses(out)}:
        append_jsonl(out / LEDGER, {"contender": one.name, "key": key, "chosen_from": one.chosen_from})


def _uses(out: Path) -> list[Entry]:
    return read_jsonl(out / LEDGER) if (out / LEDGER).is_file() else []


def summarise(contenders: list[Contender], found: list[Scored], settings: CompareConfig, out: Path, seed: int) -> Entry:
    """contenders.json: contenders with their scores, the ranking, the verdicts, how many were tried, what to do."""
    listed = [
        {
            "name": c.name, "model": c.model.name, "few_shot": c.prompting.shots, "tuned": c.tuned,
            "prompting": asdict(c.prompting), "chosen_from": c.chosen_from, "scores": s.scores,
        }
        for c, s in zip(contenders, found, strict=True)
    ]  # fmt: skip
    base = found[0]
    if not base.rows:
        return {"contenders": listed}
    task = paired.primary_task(base)
    uses = _uses(out)
    tried = max(len(uses), len(contenders))
    tests = _tests(contenders, found, task, seed)
    heads = len(paired.headline_tasks(base))
    tests = paired.correct(tests, settings.alpha, untold=(tried - len(contenders)) * heads)
    ranking = _ranking(contenders, found, task, tests, settings)
    return {
        "contenders": listed,
        "task": task,
        "ranking": ranking,
        "verdicts": tests,
        "tried": {
            "on_test": tried,
            "chosen_on_valid_from": {c.name: c.chosen_from for c in contenders if c.chosen_from > 1},
            "tests": len(tests) + (tried - len(contenders)) * heads,
        },
        "correction": "Holm over every test listed, and over contenders scored here before with other settings",
        "alpha": settings.alpha,
        "recommendation": recommend(ranking, tests, settings),
    }


def _tests(contenders: list[Contender], found: list[Scored], task: str, seed: int) -> list[Entry]:
    """Each contender against the first on every headline task that both have; each tune against everything else on the
    primary task."""
    base = found[0]
    tests = [
        paired.pair(one, base, name, seed)
        for one in found[1:]
        for name in paired.headline_tasks(base)
        if name in one.rows
    ]
    rest = list(zip(contenders[1:], found[1:], strict=True))
    for contender, one in rest:
        for other, against in rest:
            prompted = other.prompting != Prompting()
            meet = contender.tuned and one is not against and not (other.tuned and prompted)
            if meet and task in one.rows and task in against.rows:
                tests.append(paired.pair(one, against, task, seed))
    return tests


def _ranking(
    contenders: list[Contender], found: list[Scored], task: str, tests: list[Entry], settings: CompareConfig
) -> list[Entry]:
    rows = []
    against = {t["contender"]: t for t in tests if t["against"] == found[0].name and t["task"] == task}
    for contender, one in zip(contenders, found, strict=True):
        if task not in one.rows:
            continue
        entry = next(s for s in one.scores if s["task"] == task)
        line = {"contender": one.name, "task": task, "tuned": contender.tuned, "metric": entry["metric"]}
        line |= {"prompted": contender.prompting != Prompting(), "n": entry["n"]}
        line |= {name: entry[name] for name in ("value", "low", "high", "chance")}
        line |= {"verdict": against.get(one.name, {}).get("verdict"), "diff": against.get(one.name, {}).get("diff")}
        rows.append(line | usage(one, task, settings.prices) | {"break_even": None})
    rows.sort(key=lambda r: r["value"] if r["metric"] == "perplexity" else -r["value"])
    prompts = [r for r in rows if not r["tuned"]]
    by_name = {c.name: c for c in contenders}
    for row in rows:
        if row["tuned"] and prompts:
            row["break_even"] = break_even(row, prompts[0], by_name[row["contender"]], settings.prices)
    return rows
