"""Reads finished folders into plain dictionaries for the template; a missing part is left out, not invented."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tuneloop.report.draw import dot, lines
from tuneloop.store import read_json, read_jsonl, read_table

LONGEST_TEXT = 1500
MOST_OPTIONS = 12


def contenders(compare: Path | None) -> list[dict[str, Any]]:
    """Name and `scores.json` of every contender, in the order of contenders.json."""
    if compare is None or not (compare / "contenders.json").is_file():
        return []
    listed = read_json(compare / "contenders.json")
    entries = listed["contenders"] if isinstance(listed, dict) else listed
    folders = [(str(entry["name"]), compare / str(entry["name"])) for entry in entries]
    return [{"name": n, "path": p, **read_json(p / "scores.json")} for n, p in folders if (p / "scores.json").is_file()]


def score_table(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line a task and metric with a cell a contender, chance and baselines."""
    keys = dict.fromkeys((s["task"], s["metric"]) for c in found for s in c["scores"])
    table = []
    for task, metric in keys:
        cells: list[dict[str, Any]] = []
        first: dict[str, Any] = {}
        for contender in found:
            match = [s for s in contender["scores"] if (s["task"], s["metric"]) == (task, metric)]
            cells.append(_cell(match[0]) if match else {"text": "not scored", "picture": ""})
            first = first or (match[0] if match else {})
        line = {"task": task, "metric": metric, "n": first.get("n"), "cells": cells}
        chance, baselines = first.get("chance"), first.get("baselines") or {}
        line["chance"] = number(chance, share=_share(first))
        line["baselines"] = [{"name": k, "value": number(v, share=_share(first))} for k, v in baselines.items()]
        table.append(line)
    return table


def _share(score: dict[str, Any]) -> bool:
    return "perplexity" not in f"{score.get('metric')}{score.get('task')}"


def _cell(score: dict[str, Any]) -> dict[str, Any]:
    share, value = _share(score), score.get("value")
    low, high = score.get("low"), score.get("high")
    known = all(isinstance(x, int | float) and math.isfinite(x) for x in (value, low, high))
    text = number(value, share=share)
    interval = f"{number(low, share=share)} to {number(high, share=share)}" if known else ""
    picture = dot(float(value or 0), float(low or 0), float(high or 0), score.get("chance")) if known and share else ""
    note = score.get("note") or ""
    return {"text": text, "interval": interval, "picture": picture, "note": note}


def number(value: Any, *, share: bool = True) -> str:
    """A share as per cent, another number with three digits, a missing one as a dash."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{100 * value:.1f} %" if share else f"{value:.4g}"


def training(models: list[Path]) -> list[dict[str, Any]]:
    """Loss and learning-rate curves of every model folder with a log."""
    found = []
    for folder in models:
        log = [e for e in read_jsonl(folder / "log.jsonl") if isinstance(e, dict)] if _has(folder, "log.jsonl") else []
        loss, valid = _series(log, "loss", "train_loss"), _series(log, "valid_loss", "eval_loss")
        rate = _series(log, "lr", "learning_rate")
        last = {"loss": loss[-1][1] if loss else None, "valid": valid[-1][1] if valid else None}
        best = min((y for _, y in valid), default=None)
        curves = {"chart": lines({"train": loss, "valid": valid}), "rate": lines({"lr": rate}, height=110)}
        found.append({"path": str(folder), "steps": int(loss[-1][0]) if loss else 0, **last, "best": best, **curves})
    return found


def _has(folder: Path, name: str) -> bool:
    return (folder / name).is_file()


def _series(log: list[dict[str, Any]], *names: str) -> list[tuple[float, float]]:
    found = []
    for place, entry in enumerate(log):
        value = next((entry[n] for n in names if isinstance(entry.get(n), int | float)), None)
        if value is not None:
            found.append((float(entry.get("step", place)), float(value)))
    # Beyond this many points a screen shows no difference, and the file only grows.
    return found[:: max(1, len(found) // 1000)]


def analyses(folders: list[Path]) -> list[dict[str, Any]]:
    """findings.json of each analysis, with its folder; the tune comes first, since the verdict is about it."""
    found = [{"path": str(f), **read_json(f / "findings.json")} for f in folders if _has(f, "findings.json")]
    return sorted(found, key=lambda entry: entry.get("contender") != "tune")


def provenance(folders: list[Path]) -> list[dict[str, Any]]:
    """What each manifest says: stage, start, seconds, key, packages, hardware."""
    found = []
    for folder in folders:
        if _has(folder, "manifest.json"):
            manifest = read_json(folder / "manifest.json")
            kept = {
                k: manifest.get(k) for k in ("stage", "started", "seconds", "key", "packages", "hardware", "config")
            }
            found.append({"path": str(folder), **kept})
    return found


def browse(found: list[dict[str, Any]], folders: list[Path], most: int) -> tuple[list[dict[str, Any]], int]:
    """(rows to embed, rows in all): errors first, forgotten before the rest; texts are cut to a screenful."""
    before = {(str(r["task"]), str(r["row"])): r for c in found if c["name"] == "base" for r in _rows(c["path"])}
    tags = {}
    for folder in folders:
        if _has(folder, "tags.parquet"):
            for entry in read_table(folder / "tags.parquet").to_pylist():
                tags[folder.name, entry["task"], entry["row"]] = entry
    every = []
    for contender in found:
        if contender["name"] == "base" and len(found) > 1:
            continue
        for row in _rows(contender["path"]):
            key = (str(row["task"]), str(row["row"]))
            every.append(_shown(contender["name"], row, before.get(key), tags.get((contender["name"], *key), {})))
    every.sort(key=lambda row: (row["contender"] != "tune", not row["wrong"], row["change"] != "forgotten"))
    return every[:most], len(every)


def _rows(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = read_table(folder / "rows.parquet").to_pylist() if _has(folder, "rows.parquet") else []
    return rows


def _text(value: Any) -> str:
    text = "" if value is None else str(value)
    return text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " …"


def _shown(name: str, row: dict[str, Any], before: dict[str, Any] | None, tag: dict[str, Any]) -> dict[str, Any]:
    options = [_text(x) for x in row.get("options") or []]
    gold, pred = row.get("gold"), row.get("pred")
    # With many labels only the right one, the picked one and the base's pick are worth the space.
    kept = [i for i in range(len(options)) if len(options) <= MOST_OPTIONS or i in (gold, pred)]
    logs = row.get("logprobs") or []
    listed = [
        {
            "text": options[i],
            "gold": i == gold,
            "pick": i == pred,
            "was": bool(before) and i == (before or {}).get("pred"),
        }
        | {
            "score": round(float(logs[i]), 3)
            if i < len(logs) and logs[i] is not None and math.isfinite(logs[i])
            else None
        }
        for i in kept
    ]
    correct = row.get("correct")
    shown: dict[str, Any] = {
        "contender": name,
        "task": str(row["task"]),
        "id": str(row["row"]),
        "question": _text(row.get("question")),
    }
    shown |= {"options": listed, "wrong": bool(tag.get("wrong", correct is not None and correct < 0.5))}
    shown |= {"change": tag.get("change") or "", "causes": tag.get("causes") or [], "primary": tag.get("primary") or ""}
    return shown | {"said": _text(row.get("text_pred")), "expected": _text(row.get("text_gold"))}
