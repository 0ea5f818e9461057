"""What to do about the findings: one line a stage can carry out.

A line is {stage: generate | data | train, action, rows or slice, budget, why}. `generate` writes rows like those shown;
`data` drops, relabels or lays out anew the training rows named by id, or puts the options of lettered rows in another
order; `train` changes a setting. `rounds` carries out every one of them.
"""

from __future__ import annotations

from typing import Any

from tuneloop.analyze.causes import Tagged
from tuneloop.analyze.evidence import Evidence, Finding

Line = dict[str, Any]
MOST_SHOWN = 20
NEW_FOR_AN_ERROR = 5


def next_data(seen: Evidence, found: list[Finding]) -> list[Line]:
    """Lines in the order of the findings; a finding that no stage can act upon leaves none."""
    rows = {(item.task, str(item.row["row"])): item for item in seen.tagged}
    lines: list[Line] = []
    for entry in found:
        for line in _lines(entry, rows, seen.config.budget):
            lines.append({**line, "cause": entry["cause"], "why": entry["what"]})
    return lines


def _lines(entry: Finding, rows: dict[tuple[str, str], Tagged], most: int) -> list[Line]:
    cause = entry["cause"]
    if cause in ("missing coverage", "weak slice", "near miss", "never near", "knowledge gap"):
        return [_generate(entry, rows, most, "add_slice")]
    if cause in ("narrow data", "forgetting"):
        slower = {"stage": "train", "action": "halve", "setting": "learning_rate"}
        return [_generate(entry, rows, most, "replay"), *([slower] if cause == "forgetting" else [])]
    if cause in ("leaked test rows", "near-duplicates"):
        return [
            {"stage": "data", "action": "drop" if cause == "leaked test rows" else "keep_one", "rows": entry["ids"]}
        ]
    if cause == "conflicting duplicates":
        return [{"stage": "data", "action": "drop", "rows": entry["ids"]}]
    if cause == "flipped labels":
        says = {line["id"]: line["says"] for line in entry["suggested"]}
        known = all(says.values())
        relabel = {"stage": "data", "action": "relabel", "rows": entry["ids"], "answers": says}
        return [relabel if known else {"stage": "data", "action": "drop", "rows": entry["ids"]}]
    if cause == "format shift" and entry["rows"]:
        return [{"stage": "data", "action": "format", "rows": entry["ids"], **entry["layout"]}]
    if cause in ("letter bias", "position bias"):
        return [{"stage": "data", "action": "permute_options"}]
    return []  # keys of a benchmark are corrected by its owner: `tuneloop review export`


def _generate(entry: Finding, rows: dict[tuple[str, str], Tagged], most: int, action: str) -> Line:
    """Shows rows of the analysis half, wrong ones first, with the answers that were due."""
    items = [rows[entry["task"], row] for row in entry["rows"] if (entry["task"], row) in rows]
    items.sort(key=lambda item: not item.wrong)
    shown = [
        {"row": str(i.row["row"]), "question": str(i.row.get("question") or ""), "answer": answer(i)} for i in items
    ]
    wrong = sum(item.wrong for item in items)
    line: Line = {"stage": "generate", "action": action, "task": entry["task"]}
    line |= {"slice": entry.get("slice") or entry["cause"], "names": entry.get("names") or []}
    return line | {"rows": shown[:MOST_SHOWN], "budget": min(most, max(NEW_FOR_AN_ERROR, NEW_FOR_AN_ERROR * wrong))}


def answer(item: Tagged) -> str:
    """The right answer of a test row as text; empty where the row does not say."""
    options, gold = item.row.get("options") or [], item.row.get("gold")
    if gold is not None and 0 <= int(gold) < len(options):
        return str(options[int(gold)])
    return str(item.row.get("text_gold") or "")
