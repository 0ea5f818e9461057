"""Error analysis: base against tune on the same rows, the verdict, causes of wrong rows, weakest slices, findings."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from tuneloop.analyze import causes as causing
from tuneloop.analyze import slices as slicing
from tuneloop.analyze.findings import findings, next_data, summary
from tuneloop.analyze.rows import join, read_scores
from tuneloop.analyze.verdicts import verdicts
from tuneloop.config import AnalyzeConfig
from tuneloop.stage import callable_stage
from tuneloop.store import open_run, write_json, write_table, write_text


def analyze(
    config: AnalyzeConfig,
    scores: Path,
    out: Path,
    *,
    against: Path | None = None,
    data: Path | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes `findings.json`, `tags.parquet` and `next_data.jsonl` into `out`.

    `scores` is the tune's scores folder, `against` the base's; both must hold the same rows (TL-390). Without a base
    there are causes and slices, and no verdict. `data` only becomes part of the run's key.
    """
    scores, out = Path(scores), Path(out)
    read_scores(scores)
    inputs: dict[str, str | Path] = {"scores": scores}
    inputs |= {"against": against} if against else {}
    inputs |= {"data": data} if data else {}
    with open_run(out, stage="analyze", config=config.model_dump(), inputs=inputs, overwrite=overwrite) as run:
        if run.state == "done":
            return out
        found, tagged = _examine(config, scores, against)
        write_json(out / "findings.json", found)
        _write_tags(out, tagged)
        lines = next_data(found["causes"], found["slices"], config.alpha)
        write_text(out / "next_data.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        run.finish(counts={"rows": len(tagged), "wrong": sum(item.wrong for item in tagged)})
    return out


def _examine(config: AnalyzeConfig, scores: Path, against: Path | None) -> tuple[dict[str, Any], list[causing.Tagged]]:
    tasks = join(scores, against)
    judged = verdicts(tasks, config.alpha, config.seed) if against else []
    tagged = causing.tag(tasks, config.near_miss, config.confident)
    slicing.add_slices(tagged)
    causes = causing.count(tagged)
    slices = slicing.worst(tagged, config.min_slice)
    for entry in slices:
        entry["examples"] = [
            str(item.row["row"])
            for item in tagged
            if item.wrong and item.task == entry["task"] and entry["slice"] in item.slices
        ][:10]
    changes = Counter((item.task, item.change) for item in tagged if item.change)
    return {
        "contender": scores.name,
        "against": against.name if against else None,
        "summary": summary(judged),
        "alpha": config.alpha,
        "correction": "Holm over the headline metric of each task; other metrics over all tests",
        "verdicts": judged,
        "changes": [{"task": task, "change": name, "rows": n} for (task, name), n in sorted(changes.items())],
        "precedence": list(causing.PRECEDENCE),
        "causes": causes,
        "slices": slices,
        "findings": findings(judged, causes, slices, tagged, config.alpha),
    }, tagged


def _write_tags(out: Path, tagged: list[causing.Tagged]) -> None:
    import pyarrow as pa

    schema = pa.schema(
        [
            ("task", pa.string()),
            ("row", pa.string()),
            ("wrong", pa.bool_()),
            ("change", pa.string()),
            ("primary", pa.string()),
            ("causes", pa.list_(pa.string())),
            ("slices", pa.list_(pa.string())),
        ]
    )
    rows = [
        {
            "task": item.task,
            "row": str(item.row["row"]),
            "wrong": item.wrong,
            "change": item.change,
            "primary": item.primary,
            "causes": item.causes,
            "slices": item.slices,
        }
        for item in tagged
    ]
    write_table(out / "tags.parquet", pa.Table.from_pylist(rows, schema=schema))


callable_stage(__name__)
