"""What an answer costs, after how many calls a tune has paid, and what to do: tune, prompt, both, or collect rows."""

from __future__ import annotations

import math
from typing import Any

from tuneloop import stats
from tuneloop.config import CompareConfig, Prices
from tuneloop.evaluate.contenders import Contender
from tuneloop.evaluate.paired import Scored

Entry = dict[str, Any]
HOUR_S, MILLION = 3600, 1e6


def usage(scored: Scored, task: str, prices: Prices) -> Entry:
    """Means over the rows of a task: prompt and answer tokens, seconds and US dollars of an answer; None is unknown."""
    rows = list(scored.rows[task].values())
    entry = next(s for s in scored.scores if s["task"] == task)
    prompt, answer = (_mean([r.get(name) for r in rows]) for name in ("prompt_tokens", "answer_tokens"))
    seconds = entry["seconds"] / len(rows) if entry.get("seconds") is not None and rows else None
    dollars = None
    if prices.input is not None and prices.output is not None and prompt is not None and answer is not None:
        dollars = (prompt * prices.input + answer * prices.output) / MILLION
    elif prices.hour is not None and seconds is not None:
        dollars = seconds * prices.hour / HOUR_S
    return {"prompt_tokens": prompt, "answer_tokens": answer, "seconds": seconds, "usd": dollars}


def _mean(values: list[Any]) -> float | None:
    known = [float(v) for v in values if v is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None


def break_even(tune: Entry, prompt: Entry, contender: Contender, prices: Prices) -> Entry:
    """Calls after which the tune's cheaper answers have paid for its training, in dollars where prices are known, else
    in seconds of the machine. `calls` is None where the tune's answers are not cheaper, or nothing is known."""
    spent = prices.tune
    if spent is None and prices.hour is not None and contender.train_seconds is not None:
        spent = prices.hour * contender.train_seconds / HOUR_S
    unit = "usd"
    saved = None if None in (tune["usd"], prompt["usd"]) else prompt["usd"] - tune["usd"]
    if spent is None or saved is None:
        unit, spent = "seconds", contender.train_seconds
        saved = None if None in (tune["seconds"], prompt["seconds"]) else prompt["seconds"] - tune["seconds"]
    known = spent is not None and saved is not None
    calls = math.ceil(spent / saved) if known and saved and saved > 0 and spent is not None else None
    return {"unit": unit, "training": spent, "saved_per_call": saved, "calls": calls}


def recommend(ranking: list[Entry], tests: list[Entry], settings: CompareConfig) -> Entry:
    """{do, reason}: 'tune', 'prompt', 'both', 'base', or 'cannot tell' when n is too small for what was seen.

    It follows the corrected verdicts; a difference below `margin` is no reason to prefer what costs more.
    """
    base = next((r for r in ranking if r["contender"] == "base"), None)
    if base is None or len(ranking) < 2:
        return {"do": "cannot tell", "reason": "there is no base, or nothing beside it"}
    task = base["task"]
    found = {(t["contender"], t["against"]): t for t in tests if t["task"] == task}
    better = [r for r in ranking if found.get((r["contender"], "base"), {}).get("verdict") == "better"]
    if not better:
        return _nothing(found, len(tests), settings)
    prompts = [r for r in ranking if not r["tuned"] and r["contender"] != "base"]
    plain = [r for r in better if r["tuned"] and not r["prompted"]]
    both = [r for r in better if r["tuned"] and r["prompted"]]
    best = prompts[0] if prompts else base
    if both and plain and _beats(both[0], plain[0], found) and _beats(both[0], best, found):
        return _do("both", f"{_name(both[0])} is better than the tune alone and than every prompt", both[0])
    tunes = any(r["tuned"] for r in ranking)
    if not plain:
        return _do(
            "prompt",
            f"{_name(better[0])} is better than the base, and {'no tune is' if tunes else 'no tune was measured'}",
            better[0],
        )
    return _tune_or_prompt(plain[0], best, found, len(tests), settings)


def _tune_or_prompt(
    tune: Entry, best: Entry, found: dict[tuple[str, str], Entry], tried: int, settings: CompareConfig
) -> Entry:
    test = found.get((tune["contender"], best["contender"]))
    if test is None:  # no prompt beside the base
        return _do("tune", f"{_name(tune)} is better than the base; no prompt was tried", tune)
    if test["verdict"] == "better":
        return _do("tune", f"{_name(tune)} is better than the base and than the best prompt, {_name(best)}", tune)
    if test["verdict"] == "worse":
        return _do("prompt", f"{_name(best)} is better than the tune", best)
    if -settings.margin < test["low"] and test["high"] < settings.margin:
        calls = (tune.get("break_even") or {}).get("calls")
        paid = f"; the tune's cheaper answers pay for its training after {calls:,} calls" if calls else ""
        return _do(
            "prompt", f"{_name(best)} does as well as the tune within {100 * settings.margin:g} points{paid}", best
        )
    return {"do": "cannot tell", "contender": None, "reason": _too_few(test, tried, settings)}


def _nothing(found: dict[tuple[str, str], Entry], tried: int, settings: CompareConfig) -> Entry:
    others = [t for (_, against), t in found.items() if against == "base"]
    if all(t.get("high", 1.0) < settings.margin for t in others):
        reason = f"nothing is better than the base by {100 * settings.margin:g} points or more"
        return {"do": "base", "contender": "base", "reason": reason}
    top = max(others, key=lambda t: t["diff"])
    return {"do": "cannot tell", "contender": None, "reason": _too_few(top, tried, settings)}


def _too_few(test: Entry, tried: int, settings: CompareConfig) -> str:
    """What was seen, what could have been, and the rows, or sources where rows share them, that it would take."""
    sure, sources = test.get("detectable"), test.get("clusters")
    rows = f"{test['n']:,} rows" + (f" from {sources:,} sources" if sources else "")
    seen = f"n is too small. {test['contender']} against {test['against']}: {100 * test['diff']:+.1f} points on {rows}"
    seen += f", where {100 * sure:.1f} points could have been seen by one test" if sure else ""
    aim = max(abs(test["diff"]), settings.margin)
    if sources:
        grown = math.ceil(sources * (sure / aim) ** 2) if sure else 0
        least = max(grown, stats.sources_needed(tried, settings.alpha))
        return (
            f"{seen}; rows of one source move together: {tried} tests of {100 * aim:.1f} points take {least:,} sources"
        )
    flips = ((test.get("b") or 0) + (test.get("c") or 0) + 1) / (test["n"] + 2)  # some, even where none was seen
    needed = stats.rows_needed(aim, max(flips, aim)) if test.get("b") is not None else 0
    return seen + (f"; about {needed:,} rows would show {100 * aim:.1f} points" if needed else "")


def _beats(one: Entry, other: Entry, found: dict[tuple[str, str], Entry]) -> bool:
    return found.get((one["contender"], other["contender"]), {}).get("verdict") == "better"


def _name(entry: Entry) -> str:
    scale = 1 if entry.get("metric") == "perplexity" else 100
    return f"{entry['contender']} ({scale * entry['value']:.1f})"


def _do(what: str, reason: str, entry: Entry) -> Entry:
    return {"do": what, "contender": entry["contender"], "reason": reason}
