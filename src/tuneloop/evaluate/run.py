"""One contender into one scores folder."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tuneloop.config import EvalConfig, JudgeSpec, ModelConfig, TaskSpec
from tuneloop.errors import UsageError
from tuneloop.evaluate.benchmarks import expand, run_task
from tuneloop.evaluate.endpoint import endpoint_writer
from tuneloop.evaluate.options import run_chosen, run_labels
from tuneloop.evaluate.perplexity import run_perplexity
from tuneloop.evaluate.prompting import Prompting
from tuneloop.evaluate.rows import Part, write_part
from tuneloop.evaluate.seeds import over_seeds
from tuneloop.evaluate.servers import endpoint, journal, judge_from, served
from tuneloop.evaluate.split import Split, check_folder
from tuneloop.evaluate.written import DEFAULT, Judge, Writer, local_writer, run_written
from tuneloop.metrics import BY_KIND, text_metric
from tuneloop.models import context_length, load_model, load_tokenizer, locate
from tuneloop.prompts import apply_template
from tuneloop.scoring import Scorer, Served
from tuneloop.store import open_run, read_json, run_key, write_json
from tuneloop.tasks import find, foreign, local_files

Work = tuple[str, Callable[[], Part]]


@dataclass(slots=True)
class Loaded:
    """A model in memory, kept while the next contender uses the same one. `label` is what it was loaded from."""

    label: str = ""
    model: Any = None
    tokenizer: Any = None


def evaluate(
    config: EvalConfig,
    model: ModelConfig,
    out: Path,
    *,
    data: Path | None = None,
    contender: str = "base",
    prompting: Prompting | None = None,
    benchmarks: bool = True,
    overwrite: bool = False,
    loaded: Loaded | None = None,
) -> Path:
    """Scores `model` into the scores folder `out`: scores.json, rows.parquet, prompts.parquet.

    `prompting` words the rows of the test split, and gives its number of shots to tasks that name none; without
    `benchmarks` the tasks are left out. A task that was finished before a kill, or before the file of another task was
    mended, is not scored again. Raises UsageError
    125 when there is nothing to score, 150-151 for a metric that is none.
    """
    prompting = prompting or Prompting()
    config = config.model_copy(update={"tasks": expand(config.tasks) if benchmarks else []})
    for name in config.metrics:
        if name not in BY_KIND and name != "judge":
            text_metric(name)
    if not config.tasks and not (data and config.test_split):
        raise UsageError(125, "nothing to score", where="eval.tasks", cure="name a task, or give a data folder")
    if data:
        check_folder(data)
    target = str(model.adapter or model.name)
    settings = {**config.model_dump(), "model": model.model_dump(), "contender": contender}
    settings |= {"prompting": asdict(prompting), "benchmarks": benchmarks}
    settings["versions"] = {spec.task: find(spec.task).version for spec in config.tasks if not foreign(spec.task)}
    inputs = {"model": model_input(model)}
    inputs |= {"data": data} if data else {}
    inputs |= judge_inputs(config.judge)
    for i, spec in enumerate(config.tasks):
        inputs |= {f"task:{i}{name}": where for name, where in local_files(spec).items()}
    known: dict[str, Any] = {"stage": "eval", "config": settings, "inputs": inputs, "schema": 3}
    with open_run(out, **known, overwrite=overwrite, own={"partial"}) as run:
        if run.state == "done":
            return run.path
        kept = run.path / "partial"
        kept.mkdir(exist_ok=True)
        work = _work(config, model, kept, data, prompting, loaded or Loaded())
        # A server that gave some answers to an earlier start took its time then.
        timed = not any(kept.glob("*.jsonl"))
        files = [kept / f"{_part_key(run.header, place)}.json" for place in range(len(work))]
        parts = [_once(path, job, timed=timed) for path, (_, job) in zip(files, work, strict=True)]
        head = {"contender": contender, "model": target, "few_shot": prompting.shots, "prompting": asdict(prompting)}
        write_part(run.path, parts, head)
        shutil.rmtree(kept)
        run.finish(rows=sum(len(p.rows) for p in parts))
    return run.path


def judge_inputs(judge: JudgeSpec | None) -> dict[str, str | Path]:
    """What stands for a judge among a run's inputs: the model, the address and the questions."""
    if judge is None:
        return {}
    model = model_input(ModelConfig(name=judge.model, base_url=judge.base_url))
    return {"judge": model, "criteria": json.dumps(judge.criteria)}


def model_input(model: ModelConfig) -> str | Path:
    """What stands for a model among a run's inputs: its folder, or the name and address at a server."""
    target = str(model.adapter or model.name)
    return f"{model.base_url} {target}" if model.base_url else Path(locate(target))


def load_into(loaded: Loaded, model: ModelConfig) -> Loaded:
    """Loads the model unless it is the one in memory; the tokenizer anew, because a contender sets its template."""
    target = str(model.adapter or model.name)
    label = f"{target} {model.revision} {model.dtype} {model.device}"
    if loaded.label != label:
        loaded.model = None  # frees the one before
        loaded.model, loaded.label = (
            load_model(target, dtype=model.dtype, device=model.device, revision=model.revision),
            label,
        )
    loaded.tokenizer = load_tokenizer(target, revision=model.revision)
    return loaded


def _part_key(header: dict[str, Any], place: int) -> str:
    """What names the part at `place` among all: its own task, and everything else that its scores depend on."""
    config = {name: value for name, value in header["config"].items() if name not in ("tasks", "versions")}
    hashes = {name: entry["sha256"] for name, entry in header["inputs"].items()}
    inputs, tasks = {"model": hashes["model"]}, header["config"]["tasks"]
    if place < len(tasks):
        spec, own = tasks[place], f"task:{place}"
        config |= {"task": spec, "version": header["config"]["versions"].get(spec["task"])}
        inputs |= {n.removeprefix(own): v for n, v in hashes.items() if n == own or n.startswith(f"{own}:")}
    else:
        config["part"] = place - len(tasks)
        inputs["data"] = hashes["data"]
    return run_key("part", 1, config, inputs)[:16]


def _work(
    config: EvalConfig, model: ModelConfig, kept: Path, data: Path | None, prompting: Prompting, loaded: Loaded
) -> list[Work]:
    """Name and job of every part: the tasks in order, then what the test split asks for."""
    work: list[Work] = []
    judge = judge_from(config.judge if "judge" in config.metrics else None, kept)
    if model.base_url:
        for spec in config.tasks:
            work.append((spec.name or spec.task, _task(spec, config, served(model, kept), None, prompting.shots)))
        if data is not None and config.test_split:
            split = Split(data, config, None, prompting, room=0)
            write = endpoint_writer(split, endpoint(model), journal(kept, "answers", model.name, model.base_url))
            work += _some(written_work(split, write, judge))
    else:
        load_into(loaded, model)
        room = config.max_length or context_length(loaded.model, loaded.tokenizer)
        scorer = Scorer(loaded.model, max_length=room, batch_tokens=config.batch_tokens)
        for spec in config.tasks:
            work.append((spec.name or spec.task, _task(spec, config, scorer, loaded.tokenizer, prompting.shots)))
        if data is not None and config.test_split:
            work += _split_jobs(config, model, scorer, data, prompting, loaded, judge)
    return work


def _split_jobs(
    config: EvalConfig, model: ModelConfig, scorer: Scorer, data: Path, prompting: Prompting, loaded: Loaded,
    judge: Judge | None,
) -> list[Work]:  # fmt: skip
    """The work on the test split; its headline under several draws of shots where shots are drawn."""

    def jobs(words: Prompting) -> list[Work]:
        split = Split(data, config, loaded.tokenizer, words, room=scorer.max_length)
        return split_work(split, model, scorer, local_writer(split, loaded.model), judge)

    work = jobs(prompting)
    if config.shot_seeds > 1 and prompting.shots and not prompting.retrieved:
        task, _ = work[0]

        def one(seed: int) -> Part:
            return jobs(replace(prompting, shot_seed=seed))[0][1]()

        work[0] = (task, lambda: over_seeds(one, config.shot_seeds, prompting.shot_seed))
    return work


def _task(
    spec: TaskSpec, config: EvalConfig, scorer: Scorer | Served, tokenizer: Any, shots: int
) -> Callable[[], Part]:
    if config.shot_seeds < 2 or not (shots if spec.shots is None else spec.shots):
        return lambda: run_task(spec, config, scorer, tokenizer, shots)

    def one(seed: int) -> Part:
        return run_task(spec, config.model_copy(update={"shots_seed": seed}), scorer, tokenizer, shots)

    return lambda: over_seeds(one, config.shot_seeds, config.shots_seed)


def split_work(split: Split, model: ModelConfig, scorer: Scorer, write: Writer, judge: Judge | None) -> list[Work]:
    """What the kinds of rows in the split ask for, headline first; where metrics are named, only those."""
    work: list[Work] = []
    if any(e.messages for e in split.rows):
        apply_template(split.tokenizer, model.template)
    names = split.config.metrics

    def first(job: Work) -> int:
        """Where the user named the metric of a job; text metrics come as one job."""
        own = {"accuracy": ("accuracy", "macro_f1"), "choice": ("accuracy",), "perplexity": ("perplexity",)}
        asked = own.get(job[0].partition(":")[2], tuple(n for n in names if n not in BY_KIND))
        return min((names.index(n) for n in asked if n in names), default=0)

    if split.labelled and (not names or {"accuracy", "macro_f1"} & set(names)):
        work.append((f"{split.which}:accuracy", lambda: run_labels(split, scorer)))
    if split.chosen and (not names or "accuracy" in names):
        work.append((f"{split.which}:choice", lambda: run_chosen(split, scorer)))
    work += written_work(split, write, judge)
    if split.rows and (not names or "perplexity" in names):
        work.append((f"{split.which}:perplexity", lambda: run_perplexity(split, scorer)))
    return _some(sorted(work, key=first))


def _some(work: list[Work]) -> list[Work]:
    if not work:
        raise UsageError(
            154, "no row of the split can be scored so", where="eval.metrics",
            expected="accuracy for labels or options, perplexity for any row (both by a model in this process), "
            "text metrics for answers",
        )  # fmt: skip
    return work


def written_work(split: Split, write: Writer, judge: Judge | None) -> list[Work]:
    names = [n for n in split.config.metrics if n not in BY_KIND]
    if split.config.generate_limit < 1 or (split.config.metrics and not names):
        return []
    work: list[Work] = []
    free = [e for e in split.asked if e.kind in ("chat", "completion")]
    if split.labelled:
        task = f"{split.which}:free_text"
        work.append((task, lambda: run_written(split, write, split.labelled, task, names or ["free_text"], judge)))
    if free:
        chosen = names or DEFAULT
        name = f"{split.which}:{chosen[0].partition(':')[0]}"
        work.append((name, lambda: run_written(split, write, free, name, chosen, judge)))
    return work


def _once(path: Path, job: Callable[[], Part], *, timed: bool) -> Part:
    """The part that a run before left, else the job's, with the seconds it took; kept until all are there."""
    if path.is_file():
        return Part(**read_json(path))
    started = time.monotonic()
    part = job()
    seconds = round(time.monotonic() - started, 3)
    for entry in part.scores:
        entry["seconds"] = seconds if timed else None
    write_json(path, asdict(part))
    return part
