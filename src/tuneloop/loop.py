"""The loop in one process: data -> train -> compare -> analyze -> report, each stage in its own folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneloop.config import (
    DataConfig,
    EvalConfig,
    LoopConfig,
    ModelConfig,
    TaskSpec,
    TrainConfig,
)
from tuneloop.console import say
from tuneloop.errors import UsageError
from tuneloop.store import read_json, write_json

if TYPE_CHECKING:
    from tuneloop.evaluate.contenders import Contender
    from tuneloop.evaluate.run import Loaded


def run(
    config: LoopConfig,
    out: Path,
    *,
    overwrite: bool = False,
    before: dict[str, float] | None = None,
) -> Path:
    """Runs every stage of one round into `out/round-0` and returns the folder of the report.

    A stage that is finished is skipped and one that was cut short resumes, so the same command goes on after a kill.
    `before` adds the seconds of what was done ahead (an installation, the world).
    """
    from tuneloop.data import prepare
    from tuneloop.evaluate.compare import compare
    from tuneloop.evaluate.run import Loaded
    from tuneloop.report import build_report
    from tuneloop.train import train

    if not config.data.source:
        raise UsageError(
            103,
            "no data",
            where="data.source",
            expected="files, folders or hub names",
            cure="set it",
        )
    check_tasks(config.eval)
    folder = out / "round-0"
    times: dict[str, float] = dict(before or {})
    with _timed(times, "data"):
        data = prepare(config.data, folder / "data", model=config.model, tasks=config.eval.tasks, overwrite=overwrite)
    with _timed(times, "train"):
        model = train(config.train, config.model, data, folder / "model", overwrite=overwrite)
    with _timed(times, "evaluate"):
        loaded = Loaded()
        chosen = contenders(config, {"tune": model}, folder / "compare", data=data, loaded=loaded, overwrite=overwrite)
        scores = compare(
            config.eval, chosen, folder / "compare", settings=config.compare, data=data, overwrite=overwrite,
            loaded=loaded,
        )  # fmt: skip
    with _timed(times, "analyze"):
        analyses = _analyses(config, folder, data, model, scores, overwrite)
    with _timed(times, "report"):
        report = build_report(
            folder / "report", data=data, models=[model], compare=scores, analyses=analyses, timings=times,
            title=config.report.title, max_rows=config.report.max_rows, overwrite=True,
        )  # fmt: skip
    write_json(
        out / "loop.json",
        {"rounds": ["round-0"], "seconds": times, "config": config.model_dump()},
    )
    summarise(folder, times)
    return report


def _analyses(config: LoopConfig, folder: Path, data: Path, model: Path, scores: Path, overwrite: bool) -> list[Path]:
    """What was scored against the base, each analysed; training rows and kept checkpoints are those of tunes alone."""
    from tuneloop.analyze import analyze
    from tuneloop.rounds.looking import kept_scores

    kept = {}
    if config.analyze.checkpoints:
        kept = kept_scores(config.eval, config.model, model, folder / "checkpoints", data)
    return [
        analyze(
            config.analyze, scores / name, folder / "analysis" / name, against=scores / "base",
            data=data if tuned else None, kept=kept if name == "tune" else None, overwrite=overwrite,
        )
        for name, tuned in _beside(scores)
    ]  # fmt: skip


def check_tasks(config: EvalConfig) -> None:
    """Raises UsageError 120 for an unknown task before anything is started rather than after the training."""
    from tuneloop.evaluate.benchmarks import expand
    from tuneloop.tasks import find, foreign

    for spec in expand(config.tasks):
        if not foreign(spec.task):
            find(spec.task)


def report_round(folder: Path, out: Path, title: str) -> Path:
    """Builds the report of a round folder from whatever stages stand in it, or of a loop that has its verdict."""
    from tuneloop.report import build_report
    from tuneloop.report.looping import build_loop_report

    if not folder.is_dir():
        raise UsageError(
            117,
            "no such round folder",
            where=str(folder),
            cure="give a folder that `tuneloop run` wrote",
        )
    if (folder / "loop.json").is_file() and "verdict" in read_json(folder / "loop.json"):
        return build_loop_report(folder, out, title)
    model, compare, data = folder / "model", folder / "compare", folder / "data"
    found = sorted(p.parent for p in (folder / "analysis").glob("*/findings.json"))
    return build_report(
        out,
        data=data if data.is_dir() else None,
        models=[model] if model.is_dir() else [],
        compare=compare if compare.is_dir() else None,
        analyses=found,
        timings={},
        title=title,
        overwrite=True,
    )


def contenders(
    config: LoopConfig,
    tunes: dict[str, Path],
    out: Path,
    *,
    data: Path | None,
    loaded: Loaded,
    overwrite: bool = False,
) -> list[Contender]:
    """What `compare.contenders` names; without it base, base with a few-shot prompt where one is asked for, and tunes.

    Tunes are those given and those of `compare.tunes`.
    """
    from tuneloop.evaluate.contenders import resolve

    short = ["base", *(["few_shot"] if config.eval.few_shot else []), "tune"]
    settings = config.compare
    if not settings.contenders:
        settings = settings.model_copy(update={"contenders": short})
    every = {**tunes, **{name: Path(folder) for name, folder in config.compare.tunes.items()}}
    return resolve(config.eval, settings, config.model, every, out, data=data, loaded=loaded, overwrite=overwrite)


def _beside(compare: Path) -> list[tuple[str, bool]]:
    """Whose errors are analysed and whether it was tuned: tunes, and the few-shot prompt, scored as the base was."""
    rows = read_json(compare / "contenders.json")["contenders"]
    tasks = {str(row["name"]): {entry["task"] for entry in row["scores"]} for row in rows}
    chosen = [(str(row["name"]), bool(row["tuned"])) for row in rows if row["tuned"] or row["name"] == "few_shot"]
    return [(name, tuned) for name, tuned in chosen if tasks[name] == tasks["base"]]


@contextmanager
def _timed(times: dict[str, float], name: str) -> Iterator[None]:
    say(f"== {name}")
    started = time.monotonic()
    yield
    times[name] = round(time.monotonic() - started, 1)


def summarise(folder: Path, times: dict[str, float]) -> None:
    """Prints verdicts, where the time went and the path of the report."""
    for path in sorted((folder / "analysis").glob("*/findings.json")):
        say(f"\n{path.parent.name} against base")
        for line in verdict_lines(read_json(path)["verdicts"]):
            say(line)
    say("\ntime: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()))
    say(f"report: {folder / 'report' / 'report.html'}")


def verdict_lines(rows: list[dict[str, Any]]) -> list[str]:
    """A line a verdict, in 100 columns; what a second number behind n means is told once."""
    lines = []
    for row in rows:
        # Perplexities are compared by their logarithms: nats a token, higher is better.
        metric = "log-prob" if row["metric"] == "perplexity" else row["metric"]
        n = f"n {row['n']}/{row['clusters']}" if row.get("clusters") else f"n {row['n']}"
        lines.append(
            f"{row['task'][:20]:<20} {metric[:11]:<11} {row['before']:5.3f} -> {row['after']:5.3f} "
            f"[{row['low']:+.3f}, {row['high']:+.3f}] {n:<10} {row['verdict']}"
        )
    if any(row.get("clusters") for row in rows):
        lines.append("n a/b: a rows from b sources. Rows of one source move together, so sources were tested, and")
        lines.append("few of them can show little, however many rows they have.")
    return lines


WORLD_TASKS = ("arc_easy", "hellaswag", "mmlu", "truthfulqa_mc1")


def demo_config(world: Path, tune: dict[str, Any] | None = None) -> LoopConfig:
    """The loop on the embedded world that stands in `world` (see `tuneloop.world.write`)."""
    from tuneloop.train.precision import native_bfloat16
    from tuneloop.world import DEMO_TRAIN

    dtype = "bfloat16" if native_bfloat16() else "float32"
    tasks = [TaskSpec(task=name, data=str(world / "tasks"), name=f"world_{name}") for name in WORLD_TASKS]
    return LoopConfig.model_validate(
        {
            "model": ModelConfig(name="world", template="plain"),
            "data": DataConfig(source=[str(world / "instructions.jsonl")], group="entity", test_fraction=0.18),
            "train": TrainConfig(**{**DEMO_TRAIN, "dtype": dtype, **(tune or {})}),
            "eval": EvalConfig(tasks=tasks, few_shot=3, generate_limit=150),
            "report": {"title": "tuneloop demo: the embedded world"},
        }
    )


def demo(
    out: Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    say_time: Callable[[str], None] = say,
) -> Path:
    """The whole loop on the world that the package generates; returns the folder of the report."""
    from tuneloop import world

    started = time.monotonic()
    folder = out / "world"
    if overwrite or not (folder / "instructions.jsonl").is_file():
        world.write(folder, seed=seed)
    say_time(f"world written to {folder}")
    return run(
        demo_config(folder),
        out,
        overwrite=overwrite,
        before={"world": round(time.monotonic() - started, 1)},
    )
