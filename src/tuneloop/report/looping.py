"""The page of a loop: every round and the control arm on the reporting half, and what each round changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tuneloop.report.draw import dot
from tuneloop.report.page import environment
from tuneloop.store import open_run, read_json, read_jsonl, write_text

DONE = {
    "added": "{} rows added",
    "dropped": "{} rows dropped",
    "relabelled": "{} rows relabelled",
    "laid_out": "{} rows laid out anew",
    "reordered": "{} rows with their options in another order",
}
SHOWN = 5  # findings of a round


def build_loop_report(loop: Path, out: Path, title: str) -> Path:
    """Writes `out/report.html` from `loop.json`, `reads.jsonl` and the findings of each round; returns `out`."""
    state = read_json(loop / "loop.json")
    path = loop / "reads.jsonl"
    reads = [str(line["when"]) for line in read_jsonl(path)] if path.is_file() else []
    inputs: dict[str, str | Path] = {"loop": loop / "loop.json"}
    with open_run(out, stage="report", config={"title": title}, inputs=inputs, overwrite=True) as run:
        page = environment().get_template("looping.html.j2").render(
            title=title, verdict=state["verdict"], stopped=state["stopped"], reads=reads,
            contenders=[_contender(name, tasks) for name, tasks in state["verdict"]["contenders"].items()],
            pairs=_pairs(state["verdict"]), rounds=[_round(k, done) for k, done in enumerate(state["rounds"])],
        )  # fmt: skip
        write_text(out / "report.html", page)
        run.finish(counts={"rounds": len(state["rounds"])})
    return out


def _contender(name: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    lines = [{"task": task["task"], **{part: _cell(task[part]) for part in ("slice", "rest")}} for task in tasks]
    return {"name": name, "tasks": lines}


def _cell(share: dict[str, Any] | None) -> dict[str, Any] | None:
    if share is None:
        return None
    text = f"{100 * share['value']:.1f} %"
    interval = f"{100 * share['low']:.1f} to {100 * share['high']:.1f} %, {share['n']} rows"
    return {"text": text, "interval": interval, "picture": dot(share["value"], share["low"], share["high"], None)}


def _pairs(verdict: dict[str, Any]) -> list[dict[str, Any]]:
    """Every round against the control arm, then the last round against the others."""
    lines = [(name, found["against"], found) for name, found in verdict["by_round"].items()]
    lines += [(verdict["last"], other, found) for other, found in verdict["against"].items() if other != "control"]
    return [
        {"name": name, "against": other, "where": where, **found[part]}
        for name, other, found in lines
        for part, where in (("slice", "weak slice"), ("elsewhere", "elsewhere"))
        if found[part]["n"]
    ]


def _round(number: int, done: dict[str, Any]) -> dict[str, Any]:
    found = read_json(Path(done["analysis"]) / "findings.json")["findings"]
    changes = [text.format(done[key]) for key, text in DONE.items() if done.get(key)]
    if done.get("halved"):
        changes.append(f"learning rate halved to {done['learning_rate']:g}")
    return {"name": f"round-{number}", "changes": changes, "findings": found[:SHOWN], "gain": done.get("gain")}
