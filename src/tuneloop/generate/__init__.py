"""Stage: a teacher writes rows -> a folder with rows.jsonl, rejected.jsonl, journal.jsonl, summary.json.

`data` reads the folder like any other source.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tuneloop.config.generate import GenerateConfig
from tuneloop.console import Progress, progress, say, warn
from tuneloop.errors import Interrupted, PrerequisiteError, UsageError, nearest
from tuneloop.generate import diversity, inputs
from tuneloop.generate.candidate import Candidate, Inputs, Workshop, question_of
from tuneloop.generate.engine import Engine
from tuneloop.generate.finish import finisher
from tuneloop.generate.methods import METHODS, Method
from tuneloop.generate.overlap import benchmarks
from tuneloop.generate.pool import Pool, Snapshot
from tuneloop.generate.preview import Preview, preview
from tuneloop.generate.prompts import Templates
from tuneloop.generate.sandbox import need_sandbox
from tuneloop.lm.asking import Ask, Failed, Teacher, need_capabilities
from tuneloop.lm.caller import Caller
from tuneloop.lm.journal import Journal
from tuneloop.lm.limiter import Limiter
from tuneloop.records import Example
from tuneloop.stage import callable_stage
from tuneloop.store import Run, open_run, write_json, write_text

__all__ = ["Preview", "generate", "preview_run"]
SCHEMA = 1


def generate(
    config: GenerateConfig, teacher: Teacher, out: Path | str, *, judge: Teacher | None = None,
    prepare: inputs.Prepare | None = None, overwrite: bool = False,
) -> Path:  # fmt: skip
    """Makes rows into `out`; the same call resumes what was cut short, and higher limits go on where it ended.

    Raises UsageError 160-168, PrerequisiteError 212-214, DataError 395-398, PartialError 430, Interrupted.
    """
    out = Path(out)
    method = named(config)
    templates = Templates(config.templates)
    settings = config.model_dump() | {"prompts": {name: templates.hash(name) for name in templates.paths}}
    sources = {f"{kind}-{i}": name for kind in ("seeds", "documents") for i, name in enumerate(getattr(config, kind))}
    sources |= {f"benchmark-{i}": name for i, name in enumerate(config.decontaminate)}
    sources |= {"weak": config.weak} if config.weak else {}
    with open_run(
        out, stage="generate", schema=SCHEMA, config=settings, inputs=dict(sources), overwrite=overwrite
    ) as run:
        if run.state == "done" and not _reopened(run, settings):
            say(f"generate: already done in {out}")
            return out
        found = inputs.load(config, method.inputs, prepare, out / "seeds")
        asyncio.run(_run(config, method, templates, teacher, judge, found, run))
    return out


def named(config: GenerateConfig) -> Method:
    """The method, with what it needs of the config checked."""
    if config.method not in METHODS:
        raise UsageError(
            160, f"unknown method '{config.method}'", where="generate.method",
            expected=nearest(config.method, METHODS), cure="choose one of these",
        )  # fmt: skip
    method = METHODS[config.method]
    limits = config.limits
    if not method.through and not any((limits.rows, limits.tokens, limits.seconds, limits.usd)):
        raise UsageError(
            168, f"'{config.method}' has no end of its own", where="generate.limits",
            expected="rows, tokens, seconds or usd", cure="--set generate.limits.rows=100",
        )  # fmt: skip
    if "code" in config.verify:
        need_sandbox()
    return method


def preview_run(config: GenerateConfig, teacher: Teacher, out: Path, prepare: inputs.Prepare | None = None) -> Preview:
    """`--dry-run`: the first prompt as it would be sent, and what the run may cost. No call is made."""
    method = named(config)
    need_capabilities(teacher, method.needs, f"method '{config.method}'")
    found = inputs.load(config, method.inputs, prepare, out)
    return preview(config, method, Templates(config.templates), teacher, found)


def _reopened(run: Run, settings: dict[str, Any]) -> bool:
    """A finished run whose limits have changed goes on from its journal."""
    before = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    if before["config"].get("limits") == settings["limits"]:
        return False
    (run.path / "manifest.json").unlink()
    write_json(run.path / "run.json", run.header)
    return True


async def _run(
    config: GenerateConfig, method: Method, templates: Templates, teacher: Teacher, judge: Teacher | None,
    found: Inputs, run: Run,
) -> None:  # fmt: skip
    await _check(teacher, method.needs, f"method '{config.method}'")
    if judge is not None:
        await _check(judge, ("chat",), "the judge")
    journal = Journal(run.path / "journal.jsonl")
    callers = [Caller(teacher, journal, Limiter(config.teacher.concurrency))]
    if judge is not None:
        most = config.judge.teacher.concurrency if config.judge and config.judge.teacher else config.teacher.concurrency
        callers.append(Caller(judge, journal, Limiter(most)))
    shop = Workshop(config, found, templates, teacher, callers[0], judge or teacher, callers[-1])
    # A pair repeats its seed's prompt, and often its answer, by design.
    held = [] if config.method == "preference" else found.seeds
    pool = Pool(config.filters, held, benchmarks(config.decontaminate), similar=method.similar)
    total = len(getattr(found, method.through)) if method.through else None
    if total is not None and method.through != "weak":
        total *= config.per_input
    engine = Engine(
        config, finisher(method.make, config), lambda i, p: Candidate(shop, i, Snapshot(p.rows, len(p.rows))), pool,
        callers, journal, total,
    )  # fmt: skip
    stopped_by: list[int] = []
    _on_signals(engine, stopped_by)
    try:
        with progress("generate", config.limits.rows or total) as bar:
            await engine.run(lambda e: _show(bar, e))
    finally:
        for caller in callers:
            await caller.close()
        journal.close()
        _save(run, engine, found)
    gone = next((caller.gone for caller in callers if caller.gone is not None), None)
    if gone is not None:
        raise gone
    if stopped_by:
        raise Interrupted(stopped_by[0], where=str(run.path), cure="run the same command again: it resumes")
    _finish(run, engine)


async def _check(teacher: Teacher, needs: tuple[str, ...], why: str) -> None:
    """What is declared, then one small call for each capability needed, so that a run does not die of it later."""
    need_capabilities(teacher, needs, why)
    for need in needs:
        message = ({"role": "user", "content": "Say yes."},)
        ask = Ask(prompt="Yes", max_new_tokens=1) if need == "completions" else Ask(messages=message, max_new_tokens=1)
        for wait in (0.5, 2.0, None):
            try:
                await teacher.ask(ask, "")
                break
            except Failed as failure:
                if wait is None or failure.kind == "request":
                    raise PrerequisiteError(
                        214, f"the teacher '{teacher.name}' gives no {need}: {failure.what}",
                        where=getattr(teacher, "base_url", teacher.name),
                        expected="an answer to a request of one token",
                        cure="start the server, mend its address or model name, or generate.teacher.capabilities",
                    ) from failure  # fmt: skip
                await asyncio.sleep(min(failure.wait if failure.wait is not None else wait, 30.0))


def _on_signals(engine: Engine, stopped_by: list[int]) -> None:
    """The first signal finishes what is in flight; the second one is the system's."""
    loop = asyncio.get_running_loop()

    def stop(number: int) -> None:
        stopped_by.append(number)
        engine.stop()
        loop.remove_signal_handler(number)
        warn("stopping: waiting for the calls in flight (once more to stop at once; the journal keeps what came)")

    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            loop.add_signal_handler(number, stop, int(number))
        except (NotImplementedError, RuntimeError, ValueError):
            return  # Windows, or not the main thread


def _show(bar: Progress, engine: Engine) -> None:
    tally, rows = engine.tally, len(engine.pool.rows)
    dropped = " ".join(f"{name}:{count}" for name, count in (tally.dropped + tally.failed).most_common(4))
    cost = engine.cost()
    done = rows if engine.config.limits.rows else tally.candidates
    bar.advance(
        done - bar.done, accepted=rows, dropped=dropped or 0, tokens=f"{tally.teacher.all + tally.judge.all:,}",
        usd="unknown" if cost is None else round(cost, 4), calls=int(engine.callers[0].limiter.limit),
    )  # fmt: skip


def _save(run: Run, engine: Engine, found: Inputs) -> None:
    """Rows, refusals and figures as they stand; also where the run was stopped."""
    write_text(run.path / "rows.jsonl", "".join(_line(row) for row in engine.pool.rows))
    refused = (json.dumps(line, ensure_ascii=False) + "\n" for line in engine.tally.refused)
    write_text(run.path / "rejected.jsonl", "".join(refused))
    write_json(run.path / "summary.json", _summary(engine, found))


def _line(row: Example) -> str:
    values = {name: value for name, value in asdict(row).items() if value not in (None, "", [], {})}
    values |= {"parents": row.parents, "generator": row.generator}
    values.pop("split", None)  # the data stage decides it, by the ancestors
    return json.dumps(values, ensure_ascii=False) + "\n"


def _summary(engine: Engine, found: Inputs) -> dict[str, Any]:
    tally = engine.tally
    counts: dict[str, int] = {}
    for caller in engine.callers:
        for name, value in caller.counts.items():
            counts[name] = counts.get(name, 0) + value
    made = [question_of(row) for row in engine.pool.rows]
    return {
        "method": engine.config.method, "candidates": tally.candidates, "accepted": len(engine.pool.rows),
        "dropped": dict(tally.dropped.most_common()), "failed": dict(tally.failed.most_common()),
        "stopped": tally.stopped or ("stopped" if engine.stopping else "end of the inputs"),
        "calls": counts, "sessions": engine.journal.sessions + 1,
        "tokens_in": tally.teacher.asked + tally.judge.asked, "tokens_out": tally.teacher.told + tally.judge.told,
        "tokens_judge": tally.judge.all, "cost_usd": engine.cost(),
        "limiter": {"peak": engine.callers[0].limiter.peak, "cuts": engine.callers[0].limiter.cuts},
        "run_seconds": round(engine.seconds, 3),
        "seconds": round(time.monotonic() - engine.started, 3),
        "diversity": diversity.report(made, [question_of(seed) for seed in found.seeds], seed=engine.config.seed)
        if made else None,
    }  # fmt: skip


def _finish(run: Run, engine: Engine) -> None:
    tally, rows = engine.tally, len(engine.pool.rows)
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    kept = ("candidates", "accepted", "dropped", "failed", "stopped", "calls")
    run.finish(
        counts={name: summary[name] for name in kept}, cost_usd=summary["cost_usd"],
        tokens={"in": summary["tokens_in"], "out": summary["tokens_out"]},
    )  # fmt: skip
    say(f"generate: {tally.candidates:,} candidates, {rows:,} rows accepted, ended by: {summary['stopped']}")
    for name, count in (tally.dropped + tally.failed).most_common():
        say(f"  {'failed' if name in tally.failed else 'dropped'} {count:,}: {name}")
    wanted = engine.config.limits.rows
    if wanted is not None and rows < wanted:
        warn(f"{rows} of {wanted} rows: {summary['stopped']} came first")


callable_stage(__name__)
