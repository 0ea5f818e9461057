"""Small SVG pictures from numbers alone: dots with interval bars, and line charts. No text of the data enters here."""

from __future__ import annotations

import math
from collections.abc import Sequence

Points = Sequence[tuple[float, float]]


def dot(value: float, low: float, high: float, chance: float | None, *, width: int = 180) -> str:
    """A dot with its interval on an axis from 0 to 1; a dashed line marks chance."""

    def x(share: float) -> float:
        return round(6 + (width - 12) * min(1.0, max(0.0, share)), 1)

    marks = [f'<line class="axis" x1="{x(0)}" x2="{x(1)}" y1="14" y2="14"/>']
    if chance is not None:
        marks.append(f'<line class="chance" x1="{x(chance)}" x2="{x(chance)}" y1="2" y2="26"/>')
    marks.append(f'<line class="bar" x1="{x(low)}" x2="{x(high)}" y1="14" y2="14"/>')
    marks.append(f'<circle class="dot" cx="{x(value)}" cy="14" r="4.5"/>')
    label = f"{100 * value:.1f} %, interval {100 * low:.1f} to {100 * high:.1f} %"
    return f'<svg class="dots" viewBox="0 0 {width} 28" role="img" aria-label="{label}">{"".join(marks)}</svg>'


def lines(series: dict[str, Points], *, width: int = 640, height: int = 220) -> str:
    """A line chart; the names of `series` become CSS classes, so they must be plain words. Empty without points."""
    kept = {n: [(x, y) for x, y in p if math.isfinite(x) and math.isfinite(y)] for n, p in series.items()}
    every = [point for points in kept.values() for point in points]
    if not every:
        return ""
    left, bottom, top = 64, 26, 8
    x0, x1 = min(x for x, _ in every), max(x for x, _ in every)
    y0, y1 = min(y for _, y in every), max(y for _, y in every)
    pad = (y1 - y0) * 0.05 or abs(y1) * 0.05 or 1.0
    y0, y1 = y0 - pad, y1 + pad

    def at(x: float, y: float) -> tuple[float, float]:
        across = (x - x0) / (x1 - x0) if x1 > x0 else 0.5
        return left + across * (width - left - 8), top + (y1 - y) / (y1 - y0) * (height - top - bottom)

    digits = 2 if y1 < 0.01 else 3  # small numbers, learning rates, need room for their exponent
    parts = []
    for k in range(5):
        y = y0 + (y1 - y0) * k / 4
        level = at(x0, y)[1]
        parts.append(f'<line class="grid" x1="{left}" x2="{width - 8}" y1="{level:.1f}" y2="{level:.1f}"/>')
        parts.append(f'<text x="{left - 6}" y="{level + 4:.1f}" text-anchor="end">{y:.{digits}g}</text>')
    for x, anchor in ((x0, "start"), (x1, "end")):
        parts.append(f'<text x="{at(x, y0)[0]:.1f}" y="{height - 6}" text-anchor="{anchor}">step {x:g}</text>')
    for name, points in kept.items():
        path = " ".join(f"{a:.1f},{b:.1f}" for a, b in (at(x, y) for x, y in points))
        parts.append(f'<polyline class="line {name}" points="{path}"/>')
        if name == "valid" or len(points) == 1:
            spots = (at(x, y) for x, y in points)
            parts += [f'<circle class="spot {name}" cx="{a:.1f}" cy="{b:.1f}" r="3.5"/>' for a, b in spots]
    return f'<svg class="chart" viewBox="0 0 {width} {height}" role="img">{"".join(parts)}</svg>'
