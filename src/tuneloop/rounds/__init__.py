"""Turns of the loop: analyse, repair and add rows, tune again, until nothing is gained; then one verdict.

Errors are read from one half of the test alone. The other half is scored once, at the end, for base, rounds and a
control arm that got as many random rows. Every stage skips what is done, and `loop.json` says how far the loop is, so
the same command goes on after a kill.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneloop.config import DataConfig, EvalConfig, LoopConfig, ModelConfig
from tuneloop.console import say
from tuneloop.errors import UsageError
from tuneloop.records import Example, read_examples
from tuneloop.report.looping import build_loop_report
from tuneloop.rounds import pool as pooling
from tuneloop.rounds.asking import teacher_writer
from tuneloop.rounds.looking import kept_scores
from tuneloop.rounds.repair import CHANGES, halvings, repaired
from tuneloop.rounds.verdict import count_reads, judge
from tuneloop.store import read_json, read_jsonl, sha256_text, write_json

# (lines for `generate`, most rows, folder to work in) -> rows. A pool is used where no writer is given.
Writer = Callable[[list[dict[str, Any]], int, Path], list[Example]]


def run_rounds(
    config: LoopConfig, out: Path, rounds: int, *, writer: Writer | None = None, overwrite: bool = False
) -> Path:
    """Runs round 0 and up to `rounds` - 1 more into `out`; returns the folder of the verdict's loop.json.

    Raises UsageError 103 without data, 141 for tasks of lm-eval, 191 when there is neither a pool nor a writer to
    take new rows from.
    """
    from tuneloop.evaluate.harness import check_halves

    check_halves(config.eval.tasks)
    if not config.data.source:
        raise UsageError(103, "no data", where="data.source", expected="files, folders or hub names", cure="set it")
    if writer is None and config.generate.method == "weak_slices":
        writer = teacher_writer(config, out / "round-0" / "data")
    if rounds > 1 and writer is None and not config.rounds.pool:
        raise UsageError(
            191, "a second round has no rows to add", where="rounds.pool",
            expected="files of rows that were kept aside, or a teacher (generate.method=weak_slices)",
            cure="set one of them, or run one round",
        )  # fmt: skip
    state: dict[str, Any] = {"rounds": [], "stopped": "", "config": config.model_dump()}
    first = _turn(config, out / "round-0", config.data, overwrite)
    state["rounds"].append(first)
    tunes = {"round-0": Path(first["model"])}
    names: list[str] = []
    for number in range(1, rounds):
        write_json(out / "loop.json", state)
        done = _next(config, out, number, state["rounds"][-1], writer, overwrite)
        if not done:
            state["stopped"] = f"round {number}: the findings ask for nothing that can be done here"
            break
        names += [n for n in done["names"] if n not in names]
        tunes[f"round-{number}"] = Path(done["model"])
        state["rounds"].append(done)
        if not done["gain"]:
            state["stopped"] = f"round {number}: no detectable gain over round {number - 1}"
            break
    if config.rounds.control and len(tunes) > 1:
        tunes["control"] = _control(config, out, state["rounds"], writer, overwrite)
    state["verdict"] = _verdict(config, out, tunes, state["rounds"][0]["data"], names, overwrite)
    write_json(out / "loop.json", state)
    _tell(state)
    build_loop_report(out, out / "report", config.report.title)
    return out


def _turn(config: LoopConfig, folder: Path, data: DataConfig, overwrite: bool) -> dict[str, Any]:
    """One round: data, tune, scores of base and tune on the analysis half, analysis."""
    from tuneloop.analyze import analyze
    from tuneloop.train import train

    say(f"== {folder.name}")
    rows = _prepare(config, data, folder / "data", overwrite)
    model = train(config.train, config.model, rows, folder / "model", overwrite=overwrite)
    scores = {name: _score(config, "analysis", tune, rows, folder / "compare" / name, overwrite)
              for name, tune in (("base", None), ("tune", model))}  # fmt: skip
    kept = {}
    if config.analyze.checkpoints:
        kept = kept_scores(_halved(config, "analysis"), config.model, model, folder / "checkpoints", rows)
    analysis = analyze(
        config.analyze, scores["tune"], folder / "analysis" / "tune", against=scores["base"], data=rows, model=model,
        kept=kept, overwrite=overwrite,
    )  # fmt: skip
    found = {"data": rows, "model": model, "scores": scores["tune"], "analysis": analysis}
    return {name: str(path) for name, path in found.items()}


def _score(config: LoopConfig, half: str, tune: Path | None, data: Path, out: Path, overwrite: bool) -> Path:
    from tuneloop.evaluate import evaluate

    model = config.model
    if tune is not None:
        model = ModelConfig(name=str(tune), dtype=config.model.dtype, device=config.model.device)
    return evaluate(_halved(config, half), model, out, data=data, contender=out.name, overwrite=overwrite)


def _halved(config: LoopConfig, half: str) -> EvalConfig:
    return EvalConfig.model_validate({**config.eval.model_dump(), "half": half})


def _next(
    config: LoopConfig, out: Path, number: int, before: dict[str, Any], writer: Writer | None, overwrite: bool
) -> dict[str, Any] | None:
    """Acts on the findings of the round before and turns once more; None where there is nothing to act on."""
    from tuneloop.analyze import analyze

    folder = out / f"round-{number}"
    lines = read_jsonl(Path(before["analysis"]) / "next_data.jsonl")
    asked = [line for line in lines if line["stage"] == "generate" and line["cause"] != "near miss"]
    most = config.rounds.budget
    if config.rounds.pool:
        rows = pooling.targeted(_pool(config, out, overwrite), asked, most)
    else:
        rows = writer(asked, most, folder) if writer and asked else []
    lines = lines if config.rounds.repair else []
    mended = repaired(Path(before["data"]), lines, folder / "kept.jsonl", config.data.seed)
    halved = halvings(lines)
    if not rows and not halved and not any(mended[name] for name in CHANGES):
        return None
    pooling.write(rows, folder / "added.jsonl")
    rate = _rate(config, before) / 2**halved
    if halved:
        auto = [name for name in config.train.auto if name != "learning_rate"]
        train = config.train.model_copy(update={"learning_rate": rate, "auto": auto})
        config = config.model_copy(update={"train": train})
    done = _turn(config, folder, _data(config, before, folder), overwrite)
    gain = analyze(
        config.analyze, Path(done["scores"]), folder / "analysis" / "gain", against=Path(before["scores"]),
        overwrite=overwrite,
    )  # fmt: skip
    entries = [e for e in read_json(gain / "findings.json")["verdicts"] if e["headline"]]
    names = [str(n) for line in asked for n in line.get("names") or []]
    more = {
        "added": _reached(Path(done["data"]), folder / "added.jsonl"),
        **mended,
        "halved": halved,
        "learning_rate": _rate(config, done),
        "names": names,
        "gain": any(e["verdict"] == "better" for e in entries),
    }
    return done | more


def _reached(data: Path, added: Path) -> int:
    """New rows that training got: preparation leaves out copies and what repeats the test."""
    return sum((e.source or {}).get("uri") == str(added) for e in read_examples(data, "train"))


def _rate(config: LoopConfig, done: dict[str, Any]) -> float:
    """The learning rate that a round trained with at its highest."""
    log = read_jsonl(Path(done["model"]) / "log.jsonl")
    return max((float(line["learning_rate"]) for line in log if line.get("learning_rate")), default=0.0)


def _data(config: LoopConfig, before: dict[str, Any], folder: Path) -> DataConfig:
    """The kept rows and the new ones; the test rows stay those of the first round."""
    kept = [str(p) for p in (folder / "kept.jsonl", folder / "added.jsonl") if p.stat().st_size]
    values = config.data.model_dump() | {"source": kept, "test": [], "format": "auto", "columns": {}, "group": None}
    frozen = before["data"] if read_examples(before["data"], "test") else None
    return DataConfig.model_validate(values | {"frozen": frozen, "test_fraction": 0.0})


def _pool(config: LoopConfig, out: Path, overwrite: bool) -> list[Example]:
    """The rows kept aside, read and checked as any other."""

    settings = {"source": config.rounds.pool, "test_fraction": 0.0, "valid_fraction": 0.0, "seed": config.data.seed}
    settings |= {"near_duplicates": config.data.near_duplicates, "decontaminate": config.data.decontaminate}
    return read_examples(_prepare(config, DataConfig.model_validate(settings), out / "pool", overwrite), "train")


def _prepare(config: LoopConfig, data: DataConfig, out: Path, overwrite: bool) -> Path:
    from tuneloop.data import prepare

    return prepare(data, out, model=config.model, tasks=config.eval.tasks, overwrite=overwrite)


def _control(
    config: LoopConfig, out: Path, rounds: list[dict[str, Any]], writer: Writer | None, overwrite: bool
) -> Path:
    """Round 0 with as many random rows as the rounds added, and without their repairs."""
    from tuneloop.train import train

    folder = out / "control"
    count = sum(done["added"] for done in rounds[1:])
    repaired(Path(rounds[0]["data"]), [], folder / "kept.jsonl")
    if config.rounds.pool:
        rows = pooling.drawn(_pool(config, out, overwrite), count, config.data.seed)
    else:
        rows = writer([], count, folder) if writer and count else []
    pooling.write(rows, folder / "added.jsonl")
    say("== control arm")
    data = _prepare(config, _data(config, rounds[0], folder), folder / "data", overwrite)
    return train(config.train, config.model, data, folder / "model", overwrite=overwrite)


def _verdict(
    config: LoopConfig, out: Path, tunes: dict[str, Path], data: str, names: list[str], overwrite: bool
) -> dict[str, Any]:
    say("== verdict: the reporting half of the test is read")
    key = sha256_text(repr([config.model_dump(), sorted(tunes), names]))[:16]
    reads = count_reads(out, key)
    every: dict[str, Path | None] = {"base": None, **tunes}
    folders = {
        n: _score(config, "report", tune, Path(data), out / "verdict" / n, overwrite) for n, tune in every.items()
    }
    found = judge(folders, names, config.analyze.alpha, config.analyze.seed)
    return found | {"reads": reads}


def _tell(state: dict[str, Any]) -> None:
    verdict = state["verdict"]
    say(f"\nreporting half, read {verdict['reads']} time(s); weak slice: {', '.join(verdict['names'][:6]) or 'none'}")
    for name, tasks in verdict["contenders"].items():
        for task in tasks:
            cells = [
                f"{part} {task[part]['value']:.3f} (n {task[part]['n']})" for part in ("slice", "rest") if task[part]
            ]
            say(f"  {name:<10} {task['task']:<20} {'  '.join(cells)}")
    for other, found in verdict["against"].items():
        for part in ("slice", "elsewhere"):
            x = found[part]
            points = f"{100 * x['diff']:+.1f} points, p {x['p']:.2g}, n {x['n']}"
            say(f"  {verdict['last']} against {other}, {part}: {points}")
    if state["stopped"]:
        say(f"stopped at {state['stopped']}")
