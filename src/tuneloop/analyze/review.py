"""The review queue: rows whose label is in doubt as a table, and the table, corrected, read back."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

from tuneloop.analyze.training import asked
from tuneloop.errors import DataError, UsageError
from tuneloop.records import Example, read_examples
from tuneloop.store import read_json, read_table, write_text

COLUMNS = ("id", "of", "place", "cause", "question", "answer", "suggested", "keep", "corrected")
CAUSES = ("flipped labels", "conflicting duplicates", "wrong gold")


def export(analysis: Path, data: Path | None, scores: Path | None, out: Path) -> int:
    """Writes the suspects of an analysis as CSV, surest first; returns how many.

    A person fills `corrected` (the right answer) or `keep` (`no` drops the row). Rows of the training data need
    `data`, those of the test `scores`. Raises UsageError 190 where the folder that holds the rows was not given.
    """
    found = read_json(analysis / "findings.json")
    rows: list[dict[str, Any]] = []
    for entry in found["findings"]:
        if entry["cause"] in CAUSES:
            rows += _train_rows(entry, data) if entry["of"] == "train" else _test_rows(entry, scores)
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out, text.getvalue())
    return len(rows)


def _train_rows(entry: dict[str, Any], data: Path | None) -> list[dict[str, Any]]:
    if data is None:
        raise UsageError(190, "the training rows are not known", where="--data", expected="the data folder of the tune")
    known = {example.id: example for example in read_examples(data, "train")}
    says = {line["id"]: line.get("says") or "" for line in entry.get("suggested", [])}
    rows = []
    for key, place in zip(entry["ids"], entry["rows"], strict=True):
        if key in known:
            question, answer = asked(known[key])
            row = {"id": key, "of": "train", "place": place, "cause": entry["cause"], "question": question}
            rows.append(row | {"answer": answer.strip(), "suggested": says.get(key, ""), "keep": "", "corrected": ""})
    return rows


def _test_rows(entry: dict[str, Any], scores: Path | None) -> list[dict[str, Any]]:
    if scores is None:
        raise UsageError(190, "the test rows are not known", where="--scores", expected="the scores folder analysed")
    table = read_table(scores / "rows.parquet").to_pylist()
    known = {str(r["row"]): r for r in table if r["task"] == entry["task"]}
    says = {line["row"]: line["says"] for line in entry.get("suggested", [])}
    rows = []
    for key in entry["rows"]:
        row = known[key]
        answer = row["options"][row["gold"]] if row.get("options") else row.get("text_gold")
        line = {"id": key, "of": "test", "place": entry["task"], "cause": entry["cause"], "question": row["question"]}
        rows.append(line | {"answer": answer, "suggested": says.get(key, ""), "keep": "", "corrected": ""})
    return rows


def apply(table: Path, data: Path, out: Path) -> dict[str, int]:
    """Writes the train rows of `data`, with the corrections of the table, as JSONL that any `data` stage reads.

    Returns {rows, corrected, dropped, test}: `test` counts corrections of a benchmark, which are left to its owner.
    Raises DataError 380 for a table that is not one of ours, 381 for ids that the data folder does not hold.
    """
    wanted = _read(table)
    train = {row["id"]: row for row in wanted if row["of"] == "train"}
    examples = read_examples(data, "train")
    missing = sorted(set(train) - {e.id for e in examples})
    if missing:
        raise DataError(
            381, f"{len(missing)} rows of the table are not in the data, first '{missing[0]}'", where=str(table),
            expected=f"ids of {data}", cure="give the data folder that the table was exported from",
        )  # fmt: skip
    counts = {"rows": 0, "corrected": 0, "dropped": 0, "test": len(wanted) - len(train)}
    lines = []
    for example in examples:
        row = train.get(example.id, {})
        if str(row.get("keep", "")).strip().lower() in ("no", "n", "0", "false", "drop"):
            counts["dropped"] += 1
            continue
        corrected = str(row.get("corrected", "")).strip()
        counts["corrected"] += bool(corrected)
        lines.append(json.dumps(as_row(example, corrected), ensure_ascii=False) + "\n")
    counts["rows"] = len(lines)
    write_text(out, "".join(lines))
    return counts


def _read(table: Path) -> list[dict[str, str]]:
    if not table.is_file():
        raise UsageError(110, "no such file", where=str(table), cure="tuneloop review export ANALYSIS --out FILE")
    reader = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8-sig")))
    lacking = [name for name in ("id", "of", "keep", "corrected") if name not in (reader.fieldnames or [])]
    if lacking:
        raise DataError(
            380, f"no column '{lacking[0]}'", where=str(table), expected=", ".join(COLUMNS),
            cure="correct the table that `tuneloop review export` wrote",
        )  # fmt: skip
    return list(reader)


def as_row(example: Example, corrected: str = "") -> dict[str, Any]:
    """The example as a line of JSON that the data stage reads back, with another answer where one is given."""
    if example.chosen is not None:
        asked_for = {"messages": example.messages} if example.prompt is None else {"prompt": example.prompt}
        return asked_for | {"chosen": corrected or example.chosen, "rejected": example.rejected}
    if example.label is not None and example.messages is not None:
        return {"text": asked(example)[0], "label": corrected or example.label}
    if example.messages is not None:
        turns = [dict(m) for m in example.messages]
        if corrected and turns and turns[-1].get("role") == "assistant":
            turns[-1]["content"] = corrected
        return {"messages": turns}
    if example.text is not None:
        return {"text": example.text}
    blank = " " if (example.completion or "").startswith(" ") else ""
    return {"prompt": example.prompt, "completion": f"{blank}{corrected}" if corrected else example.completion}
