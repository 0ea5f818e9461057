"""The parts of the page that come from the analysis: the first screen, calibration, gain and loss."""

from __future__ import annotations

from importlib import resources
from typing import Any

SIZE = 64


def part(environment: Any, name: str, analyses: list[dict[str, Any]]) -> Any:
    """The filled `name`.html.j2 of this folder, safe to put into the page as it is."""
    from markupsafe import Markup

    source = resources.files("tuneloop.report").joinpath(f"{name}.html.j2").read_text(encoding="utf-8")
    known = dict.fromkeys(("findings", "calibration", "forgetting"))
    full = [known | entry for entry in analyses]
    return Markup(environment.from_string(source).render(analyses=full, reliability=reliability))


def reliability(bins: list[dict[str, float]]) -> str:
    """Accuracy over confidence: a dot a bin, its area by the rows in it, the diagonal dashed. Numbers alone enter."""
    total = sum(b["n"] for b in bins) or 1

    def at(share: float) -> float:
        return round(4 + (SIZE - 8) * min(1.0, max(0.0, share)), 1)

    marks = [f'<line class="chance" x1="{at(0)}" y1="{at(1)}" x2="{at(1)}" y2="{at(0)}"/>']
    for b in bins:
        radius = round(1.5 + 5 * (b["n"] / total) ** 0.5, 1)
        marks.append(f'<circle class="spot" cx="{at(b["confidence"])}" cy="{at(1 - b["accuracy"])}" r="{radius}"/>')
    label = f"reliability in {len(bins)} bins"
    return (
        f'<svg viewBox="0 0 {SIZE} {SIZE}" width="{SIZE}" height="{SIZE}" role="img" aria-label="{label}">'
        f"{''.join(marks)}</svg>"
    )
