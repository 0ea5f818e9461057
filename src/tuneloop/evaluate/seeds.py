"""Few-shot scores under several draws of shots: what the draw does, apart from the sampling of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuneloop import stats
from tuneloop.console import say
from tuneloop.evaluate.rows import Part


def over_seeds(run: Callable[[int], Part], seeds: int, first: int) -> Part:
    """The part of the first seed; its headline also says what the other draws of shots gave: `seeds` holds their means,
    the sampling error, the spread that was seen and the part of it that is the shots' own."""
    part = run(first)
    draws = [{row["row"]: row["correct"] for row in part.rows}]
    draws += [{row["row"]: row["correct"] for row in run(seed).rows} for seed in range(first + 1, first + seeds)]
    # A row that the judge could not read in one draw, or that lm-eval scores only in all, tells nothing here.
    keys = [key for key in draws[0] if all(draw.get(key) is not None for draw in draws)]
    if not keys:
        return part
    values = [[draw[key] for key in keys] for draw in draws]
    entry: dict[str, Any] = part.scores[0]
    entry["seeds"] = {"means": [sum(v) / len(v) for v in values], **stats.seed_spread(values)}
    say(f"{entry['task']}: {spread_text(entry)}")
    return part


def spread_text(entry: dict[str, Any]) -> str:
    """The spread in one line."""
    s = entry["seeds"]
    means = ", ".join(f"{m:.3f}" for m in s["means"])
    return (
        f"{len(s['means'])} draws of shots {means}: spread {s['seed_sd']:.3f}, of it the shots' own "
        f"{s['seed_effect']:.3f}; sampling error {s['sampling_error']:.3f}"
    )
