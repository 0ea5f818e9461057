"""Error analysis: base against tune on the same rows, the verdict, causes, slices, findings, and what to do next."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneloop.analyze import causes as causing
from tuneloop.analyze import slices as slicing
from tuneloop.analyze.calibration import calibrations
from tuneloop.analyze.evidence import Evidence, read_prompts
from tuneloop.analyze.findings import findings, summary
from tuneloop.analyze.forgetting import forgetting
from tuneloop.analyze.nearest import Near, nearest
from tuneloop.analyze.nextdata import next_data
from tuneloop.analyze.probes import Probe, add_probes
from tuneloop.analyze.rows import Row, join, read_scores
from tuneloop.analyze.training import Shown, read_training
from tuneloop.analyze.verdicts import verdicts
from tuneloop.config import AnalyzeConfig
from tuneloop.stage import callable_stage
from tuneloop.store import open_run, write_json, write_table, write_text

# (wrong rows, training rows) -> for each wrong row the training rows that pulled it most, signed
Influence = Callable[[list[Row], list[Shown]], list[dict[str, Any]]]


def analyze(
    config: AnalyzeConfig,
    scores: Path,
    out: Path,
    *,
    against: Path | None = None,
    data: Path | None = None,
    model: Path | None = None,
    kept: dict[str, Path] | None = None,
    probe: Probe | None = None,
    influence: Influence | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes `findings.json`, `tags.parquet` and `next_data.jsonl` into `out`.

    `scores` is the tune's scores folder, `against` the base's; both must hold the same rows (TL-390). Without a base
    there are causes and slices, and no verdict. With the `data` folder of the tune, causes in its rows are looked for,
    with its `model` folder (by default the one the scores name) also by their losses. `kept` names the scores folders
    of checkpoints. `probe` and `influence` score and differentiate; they are called only where the config asks.
    """
    scores, out = Path(scores), Path(out)
    listed, _ = read_scores(scores)
    model = model or _model_of(listed)
    inputs: dict[str, str | Path] = {"scores": scores}
    inputs |= {"against": against} if against else {}
    inputs |= {"data": data} if data else {}
    inputs |= kept or {}
    inputs |= {"row_loss": model / "row_loss.parquet"} if data and model else {}
    with open_run(out, stage="analyze", config=config.model_dump(), inputs=inputs, overwrite=overwrite) as run:
        if run.state == "done":
            return out
        seen = gather(config, scores, against, data, model)
        if config.probes and probe is not None:
            add_probes(seen.tagged, seen.prompts, config.probes, probe)
        found = _examine(seen, scores, against, model, kept)
        if config.influence and influence is not None:
            wrong = [item.row for item in seen.tagged if item.wrong][: config.influence]
            found["influence"] = influence(wrong, seen.train)
        write_json(out / "findings.json", found)
        _write_tags(out, seen.tagged, nearest(seen.train, seen.tagged))
        lines = next_data(seen, found["findings"])
        write_text(out / "next_data.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        run.finish(counts={"rows": len(seen.tagged), "wrong": sum(item.wrong for item in seen.tagged)})
    return out


def _model_of(listed: dict[str, Any]) -> Path | None:
    """The model folder that was scored, where it is one of ours with the losses of its rows."""
    folder = Path(str(listed.get("model") or ""))
    return folder if (folder / "row_loss.parquet").is_file() else None


def gather(
    config: AnalyzeConfig, scores: Path, against: Path | None, data: Path | None, model: Path | None
) -> Evidence:
    """Everything the detectors look at."""
    tasks = join(scores, against)
    judged = verdicts(tasks, config.alpha, config.seed) if against else []
    tagged = causing.tag(tasks, config.near_miss, config.confident)
    slicing.add_slices(tagged, config.min_slice, config.seed)
    slices = slicing.worst(tagged, config.min_slice, config.alpha, config.seed)
    train = read_training(data, model) if data else []
    return Evidence(config, tasks, tagged, judged, slices, train, read_prompts(scores, tasks))


def _examine(
    seen: Evidence, scores: Path, against: Path | None, model: Path | None, kept: dict[str, Path] | None
) -> dict[str, Any]:
    listed = findings(seen)
    causes = causing.count(seen.tagged)
    wrong = {(item.task, str(item.row["row"])) for item in seen.tagged if item.wrong}
    for entry in seen.slices:
        entry["examples"] = [row for row in entry.pop("rows") if (entry["task"], row) in wrong][:10]
    changes = Counter((item.task, item.change) for item in seen.tagged if item.change)
    return {
        "contender": scores.name,
        "against": against.name if against else None,
        "summary": summary(seen.verdicts),
        "alpha": seen.config.alpha,
        "correction": "Holm over the headline metric of each task; other metrics over all tests",
        "verdicts": seen.verdicts,
        "changes": [{"task": task, "change": name, "rows": n} for (task, name), n in sorted(changes.items())],
        "precedence": list(causing.PRECEDENCE),
        "causes": causes,
        "slices": seen.slices,
        "calibration": calibrations(seen.tasks, seen.config.seed),
        "forgetting": forgetting(seen, model, against, kept),
        "findings": listed,
    }


def _write_tags(out: Path, tagged: list[causing.Tagged], near: dict[tuple[str, str], list[Near]]) -> None:
    import pyarrow as pa

    words, plain = pa.list_(pa.string()), pa.string()
    kinds = {"task": plain, "row": plain, "wrong": pa.bool_(), "change": plain, "primary": plain}
    kinds |= dict.fromkeys(("causes", "slices", "nearest", "nearest_places", "nearest_answers"), words)
    schema = pa.schema(list((kinds | {"nearest_similarity": pa.list_(pa.float64())}).items()))
    rows = []
    for item in tagged:
        key = (item.task, str(item.row["row"]))
        row: dict[str, Any] = {"task": item.task, "row": key[1], "wrong": item.wrong, "change": item.change}
        row |= {"primary": item.primary, "causes": item.causes, "slices": item.slices}
        close = near.get(key, [])
        row |= {"nearest": [n.id for n in close], "nearest_places": [n.place for n in close]}
        rows.append(
            row | {"nearest_answers": [n.answer for n in close], "nearest_similarity": [n.similarity for n in close]}
        )
    write_table(out / "tags.parquet", pa.Table.from_pylist(rows, schema=schema))


callable_stage(__name__)
