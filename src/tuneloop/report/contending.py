"""The ranked contenders of a comparison as plain dictionaries of texts for the template."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tuneloop.report.draw import dot
from tuneloop.store import read_json

WORDS = {
    "tune": "Use the tune.",
    "prompt": "Use a prompt; it needs no tuning.",
    "both": "Use the tune together with a prompt.",
    "base": "Leave the base as it is.",
    "cannot tell": "Cannot tell.",
}


def contending(compare: Path | None) -> dict[str, Any] | None:
    """Ranking, tests of tunes against prompts, what was tried, what to do; None where nothing was ranked."""
    if compare is None or not (compare / "contenders.json").is_file():
        return None
    found = read_json(compare / "contenders.json")
    ranking = found.get("ranking") if isinstance(found, dict) else None
    if not ranking or len(ranking) < 2:
        return None
    own = {r["contender"] for r in ranking if r["tuned"]}
    base = found["contenders"][0]["name"]
    tests = [t for t in found["verdicts"] if t["contender"] in own and t["against"] != base and t["n"]]
    advice = found["recommendation"]
    return {
        "task": found["task"],
        "metric": ranking[0]["metric"],
        "n": ranking[0]["n"],
        "rows": [_row(r) for r in ranking],
        "tests": [_test(t) for t in tests],
        "tried": found["tried"]["on_test"],
        "corrected": found["tried"]["tests"],
        "searched": [f"{name} from {count}" for name, count in found["tried"]["chosen_on_valid_from"].items()],
        "advice": WORDS[advice["do"]],
        "reason": advice["reason"],
    }


def _row(r: dict[str, Any]) -> dict[str, Any]:
    even = r.get("break_even") or {}
    unit = "$" if even.get("unit") == "usd" else "s"
    paid = (
        f"{even['training']:,.4g} {unit} of training are paid after {even['calls']:,} calls"
        if even.get("calls")
        else ""
    )
    return {
        "name": r["contender"],
        "score": f"{100 * r['value']:.1f} %",
        "picture": dot(r["value"], r["low"], r["high"], r["chance"]),
        "diff": "" if r["diff"] is None else f"{100 * r['diff']:+.1f}",
        "verdict": r["verdict"] or "the base",
        "prompt_tokens": _known(r["prompt_tokens"], ",.0f"),
        "answer_tokens": _known(r["answer_tokens"], ",.0f"),
        "seconds": _known(r["seconds"], ".3f"),
        "usd": _known(None if r["usd"] is None else 1000 * r["usd"], ".4g"),
        "paid": paid,
    }


def _test(t: dict[str, Any]) -> dict[str, Any]:
    interval = f"{100 * t['low']:+.1f} to {100 * t['high']:+.1f}"
    names = {"name": t["contender"], "against": t["against"], "verdict": t["verdict"]}
    return names | {"diff": f"{100 * t['diff']:+.1f}", "interval": interval, "p": f"{t['p_adjusted']:.2g}"}


def _known(value: Any, form: str) -> str:
    return format(value, form) if isinstance(value, int | float) and math.isfinite(value) else "–"
