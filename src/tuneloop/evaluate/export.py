"""A scores folder in lm-eval's files, for tools that read those."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tuneloop.scored import Row, read_scores
from tuneloop.store import read_json, read_table, sha256_text, write_json, write_text

Entry = dict[str, Any]


def export_samples(scores: Path, out: Path) -> list[Path]:
    """`samples_<task>_<date>.jsonl` as lm-eval's `--log_samples` writes them, and `results_<date>.json`.

    What a scores folder does not keep (the raw document) is built from what it does; hashes are lm-eval's own kind,
    SHA-256 of the text.
    """
    head, rows = read_scores(scores)
    prompts = {r["prompt_hash"]: r["prompt"] for r in read_table(scores / "prompts.parquet").to_pylist()}
    date, files = _date(scores), []
    for task in dict.fromkeys(str(r["task"]) for r in rows):
        names = [str(s["metric"]) for s in head["scores"] if s["task"] == task]
        own = [r for r in rows if r["task"] == task]
        lines = [json.dumps(_sample(i, r, prompts, names), ensure_ascii=False) + "\n" for i, r in enumerate(own)]
        files.append(out / f"samples_{_safe(task)}_{date}.jsonl")
        write_text(files[-1], "".join(lines))
    files.append(out / f"results_{date}.json")
    write_json(files[-1], _results(head))
    return files


def _date(scores: Path) -> str:
    """When the run started, in the form that lm-eval finds again in a file's name."""
    manifest = scores / "manifest.json"
    started = str(read_json(manifest)["started"]) if manifest.is_file() else "1970-01-01T00:00:00Z"
    return started.removesuffix("Z").replace(":", "-")


def _safe(task: str) -> str:
    return re.sub(r"\W", "_", task)


def _results(head: Entry) -> Entry:
    results: dict[str, Entry] = {}
    for s in head["scores"]:
        entry = results.setdefault(str(s["task"]), {"alias": s["task"]})
        entry |= {f"{s['metric']},none": s["value"], f"{s['metric']}_stderr,none": s["stderr"] or "N/A"}
    first = {str(s["task"]): s for s in reversed(head["scores"])}
    return {
        "results": results,
        "n-shot": {task: s.get("shots", 0) for task, s in first.items()},
        "n-samples": {task: {"original": s["n"], "effective": s["n"]} for task, s in first.items()},
        "versions": {task: s.get("version", "1") for task, s in first.items()},
        "model_name": head.get("model"),
    }


def _sample(number: int, row: Row, prompts: dict[str, str], names: list[str]) -> Entry:
    prompt = prompts.get(str(row["prompt_hash"]), "")
    options, logs = row.get("options") or [], row.get("logprobs") or []
    if logs and options:
        asked: Entry = {f"gen_args_{i}": {"arg_0": prompt, "arg_1": f" {o}"} for i, o in enumerate(options)}
        greedy = row.get("greedy") or [False] * len(logs)
        said: list[Any] = [[[repr(float(v)), str(g)]] for v, g in zip(logs, greedy, strict=True)]
        target: Any = row["gold"]
    else:
        asked = {"gen_args_0": {"arg_0": prompt, "arg_1": {}}}
        said, target = [[str(row.get("text_pred") or "")]], row.get("text_gold")
    doc = {"id": row["row"], "question": row["question"], "choices": options, "category": row["category"]}
    first = [r[0] for r in said]
    entry: Entry = {
        "doc_id": number, "doc": doc, "target": str(target), "arguments": asked, "resps": said, "filtered_resps": first,
        "filter": "none", "metrics": names, "doc_hash": sha256_text(json.dumps(doc, ensure_ascii=False)),
        "prompt_hash": sha256_text(prompt), "target_hash": sha256_text(str(target)),
    }  # fmt: skip
    for place, name in enumerate(names):
        stored = row.get(f"score_{name}")
        column = "correct_norm" if name.endswith("_norm") else "correct"
        # A score over the whole set (macro F1, a group's accuracy) has no value of its own for a row.
        known = stored if stored is not None else row.get(column) if place == 0 or name.endswith("_norm") else None
        entry |= {name: known} if known is not None else {}
    entry["metrics"] = [n for n in names if n in entry]
    return entry
