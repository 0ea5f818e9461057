"""The loop in one process: data -> train -> compare -> analyze -> report, each stage in its own folder."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
    from tuneloop.analyze import analyze
    from tuneloop.data import prepare
    from tuneloop.evaluate import compare
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
    folder = out / "round-0"
    times: dict[str, float] = dict(before or {})
    with _timed(times, "data"):
        data = prepare(config.data, folder / "data", model=config.model, tasks=config.eval.tasks, overwrite=overwrite)
    with _timed(times, "train"):
        model = train(config.train, config.model, data, folder / "model", overwrite=overwrite)
    with _timed(times, "evaluate"):
        scores = compare(
            config.eval,
            contenders(config, model),
            folder / "compare",
            data=data,
            overwrite=overwrite,
        )
    with _timed(times, "analyze"):
        analyses = [
            analyze(
                config.analyze, scores / name, folder / "analysis" / name,
                against=scores / "base", data=data, overwrite=overwrite,
            )
            for name in _names(scores)
            if name != "base"
        ]  # fmt: skip
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


def report_round(folder: Path, out: Path, title: str) -> Path:
    """Builds the report of a round folder from whatever stages stand in it."""
    from tuneloop.report import build_report

    if not folder.is_dir():
        raise UsageError(
            115,
            "no such round folder",
            where=str(folder),
            cure="give a folder that `tuneloop run` wrote",
        )
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


def contenders(config: LoopConfig, tune: Path) -> list[dict[str, Any]]:
    """Base, base with a few-shot prompt where one is asked for, and the tune."""
    base = {"name": "base", "model": config.model, "few_shot": 0}
    prompt = {
        "name": "base-prompted",
        "model": config.model,
        "few_shot": config.eval.few_shot,
    }
    tuned = ModelConfig(name=str(tune), dtype=config.model.dtype, device=config.model.device)
    middle = [prompt] if config.eval.few_shot else []
    return [base, *middle, {"name": "tune", "model": tuned, "few_shot": 0}]


def _names(compare: Path) -> list[str]:
    listed = read_json(compare / "contenders.json")
    rows = listed["contenders"] if isinstance(listed, dict) else listed
    return [str(row["name"]) for row in rows]


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
        for row in read_json(path)["verdicts"]:
            say("  " + verdict_line(row))
    say("\ntime: " + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in times.items()))
    say(f"report: {folder / 'report' / 'report.html'}")


def verdict_line(row: dict[str, Any]) -> str:
    return (
        f"{row['task']:<24} {row['metric']:<9} {row['before']:>8.3f} -> {row['after']:>8.3f}  "
        f"[{row['low']:+.3f}, {row['high']:+.3f}]  n {row['n']:<6} {row['verdict']}"
    )


WORLD_TASKS = ("arc_easy", "hellaswag", "mmlu", "truthfulqa_mc1")


def demo_config(world: Path, tune: dict[str, Any] | None = None) -> LoopConfig:
    """The loop on the embedded world that stands in `world` (see `tuneloop.world.write`)."""
    from tuneloop.world import DEMO_TRAIN

    tasks = [TaskSpec(task=name, data=str(world / "tasks"), name=f"world_{name}") for name in WORLD_TASKS]
    return LoopConfig.model_validate(
        {
            "model": ModelConfig(name="world", template="plain"),
            "data": DataConfig(source=[str(world / "instructions.jsonl")], test_fraction=0.05),
            "train": TrainConfig(**{**DEMO_TRAIN, **(tune or {})}),
            "eval": EvalConfig(tasks=tasks, few_shot=3, generate_limit=50),
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
