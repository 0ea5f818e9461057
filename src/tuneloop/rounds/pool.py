"""New rows for a round out of a pool that was kept aside: those that the findings ask for, or as many at random."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from tuneloop.analyze.coverage import holds
from tuneloop.analyze.review import as_row
from tuneloop.analyze.training import asked
from tuneloop.neighbours.tfidf import Index
from tuneloop.records import Example
from tuneloop.store import write_text

NEAR = 0.3  # cosine from which a row of the pool is like a row that was shown


def targeted(pool: list[Example], lines: list[dict[str, Any]], most: int) -> list[Example]:
    """Rows of the pool under the names of each line, else those nearest to the rows it shows; lines take turns."""
    wanted = [_fitting(pool, line) for line in lines]
    found: list[Example] = []
    seen: set[str] = set()
    budgets = [int(line.get("budget") or 0) for line in lines]
    while len(found) < most and any(rows and budget for rows, budget in zip(wanted, budgets, strict=True)):
        for k, rows in enumerate(wanted):
            while rows and budgets[k] and len(found) < most:
                example = rows.pop(0)
                if example.id not in seen:
                    seen.add(example.id)
                    found.append(example)
                    budgets[k] -= 1
                    break
    return found


def _fitting(pool: list[Example], line: dict[str, Any]) -> list[Example]:
    names = list(line.get("names") or [])
    if names:
        rows = [{"question": asked(e)[0], "text_gold": e.label or ""} for e in pool]
        return [e for e, row in zip(pool, rows, strict=True) if holds(names, row)]
    shown = [str(row.get("question") or "") for row in line.get("rows") or []]
    _, values = Index(shown).nearest([asked(e)[0] for e in pool], 1)
    near = [(float(v[0]), k) for k, v in enumerate(values) if len(v) and v[0] >= NEAR]
    return [pool[k] for _, k in sorted(near, key=lambda pair: -pair[0])]


def drawn(pool: list[Example], count: int, seed: int) -> list[Example]:
    """As many rows at random: what the control arm is tuned on."""
    return random.Random(seed).sample(pool, min(count, len(pool)))


def write(rows: list[Example], out: Path) -> int:
    write_text(out, "".join(json.dumps(as_row(e), ensure_ascii=False) + "\n" for e in rows))
    return len(rows)
