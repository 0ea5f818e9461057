"""At most ten findings in plain words: what, how sure, which rows, why, and one thing to do."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tuneloop.analyze.causes import Tagged

Finding = dict[str, Any]
MOST = 10
MOST_CAUSES = 5
WHY = {
    "truncated prompt": "the prompt was longer than the model's context, so its beginning was cut off",
    "tie": "two options scored the same, so the first one won by position alone",
    "forgetting": "the base had these right; tuning moved the model away from them",
    "format failure": "right when the options are scored, but the generated text does not state it as expected",
    "length bias": "right once scores are divided by answer length, so the length of the options decided",
    "position bias": "one answer position is picked far more often than it is right",
    "confident wrong": "almost all probability went to a wrong answer: a wrong label, or a wrong fact learned well",
    "near miss": "the right answer came second with a good share of the probability",
    "never near": "the right answer came last: the model does not know this",
    "other": "wrong without a pattern that the option scores show",
}
DO = {
    "truncated prompt": "score with a model of longer context, or with fewer shots",
    "tie": "tuneloop eval --set model.dtype=float32 ...  (coarse number formats make ties)",
    "forgetting": "tuneloop train ... --set train.learning_rate=<half of before>, and mix general rows into the data",
    "format failure": "add rows with the exact answer format to the training file, then tuneloop run CONFIG",
    "length bias": "report the length-normalised metric (acc_norm) for this task",
    "position bias": "add training rows with the right answer in every position equally often",
    "confident wrong": "read these rows below and check their labels before adding data",
    "near miss": "add more training rows of this kind, then tuneloop run CONFIG",
    "never near": "add rows that state the missing facts to the training file, then tuneloop run CONFIG",
    "other": "read a few of these rows below",
}
FEATURED = [name for name in WHY if name != "other"]


def findings(
    verdicts: list[dict[str, Any]],
    causes: list[dict[str, Any]],
    slices: list[dict[str, Any]],
    tagged: list[Tagged],
    alpha: float,
) -> list[Finding]:
    """Verdicts first (worse, better, chance, undecided), then causes by rows, then slices that survive BH."""
    rows: dict[tuple[str, str], list[str]] = {}
    for item in tagged:
        rows.setdefault((item.task, item.change), []).append(str(item.row["row"]))
    heads = [entry for entry in verdicts if entry["headline"]]
    ordered = sorted(heads, key=lambda entry: ("worse", "better").index(entry["verdict"]) if _clear(entry) else 2)
    found = [_verdict(entry, rows) for entry in ordered if _clear(entry)]
    found += _at_chance(heads)
    found += _undecided([entry for entry in heads if not _clear(entry)])
    ranked = sorted((entry for entry in causes if entry["cause"] in FEATURED), key=lambda entry: -entry["rows"])
    found += [_cause(entry) for entry in ranked[:MOST_CAUSES]]
    sure = [entry for entry in slices if entry["p_adjusted"] <= alpha and entry["excess_low"] > 0]
    found += [_slice(entry) for entry in sure]
    return found[:MOST]


def _clear(entry: dict[str, Any]) -> bool:
    return bool(entry["verdict"] in ("worse", "better"))


def amount(entry: dict[str, Any], key: str, sign: str = "+") -> str:
    """A difference in points, or in nats for mean log-probabilities."""
    if entry["unit"] == "points":
        return f"{100 * entry[key]:{sign}.1f} points"
    return f"{entry[key]:{sign}.3f} nats a token"


def _interval(entry: dict[str, Any]) -> str:
    return f"95 % interval {amount(entry, 'low')} to {amount(entry, 'high')}, corrected p {entry['p_adjusted']:.2g}"


def _verdict(entry: dict[str, Any], rows: dict[tuple[str, str], list[str]]) -> Finding:
    better = entry["verdict"] == "better"
    change = "learned" if better else "forgotten"
    moved = f"{entry['c']} rows went from wrong to right and {entry['b']} from right to wrong"
    finding = {
        "what": f"{entry['task']}: {entry['verdict']} than the base by {amount(entry, 'diff')}",
        "how_sure": f"{_interval(entry)}, {entry['n']} rows, {entry['test']}",
        "rows": rows.get((entry["task"], change), [])[:20],
        "why": moved if entry["b"] is not None else "the score of the same rows moved",
    }
    keep = "check that no training row repeats these rows, then keep the tune"
    return finding | {"task": entry["task"], "do": keep if better else DO["forgetting"]}


def _at_chance(heads: list[dict[str, Any]]) -> list[Finding]:
    low = [entry for entry in heads if entry["at_chance"]]
    if not low:
        return []
    named = ", ".join(
        f"{entry['task']} ({100 * entry['after']:.1f} % against {100 * entry['chance']:.1f} %)" for entry in low
    )
    return [
        {
            "what": f"At chance: {named}",
            "how_sure": "the 95 % interval of the score holds the chance level",
            "rows": [],
            "why": "the model does not do this task; causes of single rows mean little here",
            "do": "use a larger base, or rows that teach this task; do not read the ranking of such scores",
        }
    ]


def _undecided(heads: list[dict[str, Any]]) -> list[Finding]:
    if not heads:
        return []
    parts = [
        f"{entry['task']} {amount(entry, 'diff')}"
        + (f" (could have shown {amount(entry, 'detectable', '')})" if entry["detectable"] is not None else "")
        for entry in heads
    ]
    return [
        {
            "what": "No detectable difference: " + "; ".join(parts),
            "how_sure": "the corrected paired test does not tell tune and base apart; that is no proof they are equal",
            "rows": [],
            "why": "too small a difference for this many rows, or none",
            "do": "score more rows (a higher limit under eval.tasks), or tune on more data",
        }
    ]


def _cause(entry: dict[str, Any]) -> Finding:
    return {
        "what": f"{entry['task']}: {entry['cause']} in {entry['rows']} rows",
        "how_sure": f"{100 * entry['share']:.1f} % of the rows, 95 % interval {100 * entry['low']:.1f} to "
        f"{100 * entry['high']:.1f} %; a rule of thumb on the option scores, not a proof",
        "rows": entry["examples"],
        "why": WHY[entry["cause"]],
        "task": entry["task"],
        "do": DO[entry["cause"]],
    }


def _slice(entry: dict[str, Any]) -> Finding:
    return {
        "what": f"{entry['task']}, {entry['slice']}: {100 * entry['rate']:.0f} % wrong against "
        f"{100 * entry['expected']:.0f} % overall",
        "how_sure": f"{entry['errors']} of {entry['n']} rows, corrected p {entry['p_adjusted']:.2g}; "
        "not confirmed on fresh rows",
        "rows": entry.get("examples", []),
        "why": "this group of rows is harder for the tune than the rest of the task",
        "task": entry["task"],
        "do": f"add training rows like '{entry['slice']}', then tuneloop run CONFIG",
    }


def next_data(causes: list[dict[str, Any]], slices: list[dict[str, Any]], alpha: float) -> list[dict[str, Any]]:
    """First, simple form: one line a cause or slice that names a stage, an action, rows and a budget of new rows."""
    actions = {
        "forgetting": ("data", "replay"),
        "near miss": ("generate", "add_like"),
        "never near": ("generate", "add_facts"),
        "format failure": ("generate", "add_format"),
        "position bias": ("data", "permute_options"),
        "confident wrong": ("data", "check_labels"),
    }
    lines: list[dict[str, Any]] = []
    for entry in causes:
        if entry["cause"] in actions:
            stage, action = actions[entry["cause"]]
            line = {"stage": stage, "action": action, "task": entry["task"], "cause": entry["cause"]}
            lines.append(line | {"rows": entry["examples"], "budget": min(1000, 5 * entry["rows"])})
    for entry in slices:
        if entry["p_adjusted"] <= alpha:
            line = {"stage": "generate", "action": "add_slice", "task": entry["task"], "slice": entry["slice"]}
            lines.append(line | {"rows": entry.get("examples", []), "budget": min(1000, 5 * entry["errors"])})
    return lines


def summary(verdicts: list[dict[str, Any]]) -> str:
    """The verdict in one sentence."""
    heads = [entry for entry in verdicts if entry["headline"]]
    if not heads:
        return "No base to compare with: causes only, no verdict."
    counts = Counter(entry["verdict"] for entry in heads)
    parts = [
        f"{name} on {counts[name]} ({', '.join(e['task'] for e in heads if e['verdict'] == name)})"
        for name in ("better", "worse", "no detectable difference")
        if counts[name]
    ]
    chance = sum(entry["at_chance"] for entry in heads)
    tail = f" At chance on {chance}." if chance else ""
    return f"Of {len(heads)} {'task' if len(heads) == 1 else 'tasks'}: " + "; ".join(parts) + "." + tail
