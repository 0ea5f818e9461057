"""One self-contained HTML file: verdict, scores, findings, curves, slices, rows. It asks the network for nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tuneloop.report import gather
from tuneloop.report.contending import contending
from tuneloop.report.datapage import data_page
from tuneloop.report.page import environment
from tuneloop.report.parts import part
from tuneloop.store import open_run, write_text

# What the analysis says first, and what stands further down.
PARTS = {"first": "findings", "deeper": "deeper"}


def build_report(
    out: Path,
    *,
    data: Path | None,
    models: list[Path],
    compare: Path | None,
    analyses: list[Path],
    timings: dict[str, float],
    title: str,
    max_rows: int = 2000,
    overwrite: bool = False,
) -> Path:
    """Writes `out/report.html` from whatever stages are given and returns `out`."""
    out = Path(out)
    inputs: dict[str, str | Path] = {f"model {i}": p for i, p in enumerate(models)}
    inputs |= {f"analysis {i}": p for i, p in enumerate(analyses)}
    inputs |= {name: path for name, path in (("data", data), ("compare", compare)) if path is not None}
    config = {"title": title, "max_rows": max_rows, "timings": timings}
    with open_run(out, stage="report", config=config, inputs=inputs, overwrite=overwrite) as run:
        if run.state == "done":
            return out
        found = gather.contenders(compare)
        rows, total = gather.browse(found, analyses, max_rows)
        stages = [*([data] if data else []), *models, *([compare] if compare else [])]
        stages += [c["path"] for c in found] + list(analyses)
        page = render(
            title=title,
            contenders=[{"name": c["name"], "warnings": c.get("warnings", [])} for c in found],
            table=gather.score_table(found),
            contending=contending(compare),
            analyses=gather.analyses(analyses),
            training=gather.training(models),
            data=data_page(data),
            timings=timings,
            provenance=gather.provenance(stages),
            rows=rows,
            total=total,
            where=str(compare) if compare else "",
        )
        write_text(out / "report.html", page)
        run.finish(counts={"rows": len(rows), "rows_in_all": total})
    return out


def render(**values: Any) -> str:
    """The page; every value is escaped by the template, rows travel as JSON that cannot close its element."""
    from markupsafe import Markup

    pages = environment()
    rows = safe_json(values.pop("rows"))
    verdict = " ".join(f"{a['contender']}: {a['summary']}" for a in values["analyses"]) or "No comparison: scores only."
    values |= {name: part(pages, file, values["analyses"]) for name, file in PARTS.items()}
    return str(pages.get_template("template.html.j2").render(rows=Markup(rows), verdict=verdict, **values))


def safe_json(value: object) -> str:
    """JSON for a script element: no '<', '>', '&' and no line separators, so no text can close the element."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, default=str)
    # Lone surrogates cannot be written as UTF-8.
    text = text.encode("utf-8", "replace").decode("utf-8")
    for mark in ("<", ">", "&", "\u2028", "\u2029"):
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text
