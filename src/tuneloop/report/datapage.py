"""The data part of the page: where the rows went, lengths as bars, clusters of repeats and overlaps side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneloop.store import read_json

SHOWN_CLUSTERS, SHOWN_FINDS, SHOWN_LABELS = 8, 12, 30


def data_page(data: Path | None) -> dict[str, Any] | None:
    """What the template shows of `profile.json`; None where there is no data folder, or one of an older layout."""
    if data is None or not (data / "profile.json").is_file():
        return None
    profile = read_json(data / "profile.json")
    if "clusters" not in profile:
        return None
    tokens = profile.get("tokens")
    unit, histogram = ("tokens", tokens["histogram"]) if tokens else ("characters", profile["characters"]["histogram"])
    reasons = [
        {"name": name, "rows": n, "share": n / max(1, profile["rows_in"])} for name, n in profile["reasons"].items()
    ]
    return {
        "rows_in": profile["rows_in"], "kept": profile["kept"], "rejected": profile["rejected"], "reasons": reasons,
        "splits": profile["splits"], "sources": profile["sources"], "tokens": tokens, "unit": unit,
        "lengths": bars(histogram), "sides": _sides(profile, tokens), "clusters": profile["clusters"][:SHOWN_CLUSTERS],
        "large_groups": profile["large_groups"], "overlaps": profile["contamination"],
        "finds": profile["contamination"].get("finds", [])[:SHOWN_FINDS], "labels": profile["balance"][:SHOWN_LABELS],
        "all_labels": len(profile["labels"]), "languages": profile["languages"],
    }  # fmt: skip


def _sides(profile: dict[str, Any], tokens: dict[str, Any] | None) -> list[dict[str, Any]]:
    """One line a side with the percentiles that stand in the profile."""
    if tokens:
        return [{"name": name, **tokens[name]} for name in ("prompt", "answer", "example") if tokens[name]]
    return [
        {"name": name, **profile["characters"][name]} for name in ("prompt", "answer") if profile["characters"][name]
    ]


def bars(histogram: dict[str, list[float]], *, width: int = 640, height: int = 160) -> str:
    """A histogram over edges that grow by a factor, as an SVG of numbers alone; empty without rows."""
    counts, edges = histogram["counts"], histogram["edges"]
    if not counts or not max(counts):
        return ""
    left, bottom, top = 54, 22, 8
    step = (width - left - 8) / len(counts)
    floor = height - bottom
    parts = [f'<line class="axis" x1="{left}" x2="{width - 8}" y1="{floor}" y2="{floor}"/>']
    for place, count in enumerate(counts):
        size = (floor - top) * count / max(counts)
        x = left + place * step
        wide = max(1.0, step - 1)
        parts.append(
            f'<rect class="block" x="{x:.1f}" y="{floor - size:.1f}" width="{wide:.1f}" height="{size:.1f}">'
            f"<title>{edges[place]:g} to {edges[place + 1]:g}: {count:g} rows</title></rect>"
        )
    for place in sorted({0, len(counts) // 2, len(counts)}):
        anchor = "start" if place == 0 else "end" if place == len(counts) else "middle"
        parts.append(
            f'<text x="{left + place * step:.1f}" y="{height - 6}" text-anchor="{anchor}">{edges[place]:g}</text>'
        )
    parts.append(f'<text x="{left - 6}" y="{top + 8}" text-anchor="end">{max(counts):g}</text>')
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'
