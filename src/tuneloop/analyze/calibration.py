"""Does the model know when it is right? Error of its confidence, before and after, and a temperature that mends it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tuneloop.analyze.causes import probabilities
from tuneloop.analyze.rows import Row, TaskRows
from tuneloop.text import share

BINS = 15
SMALLEST = 50  # rows below which a task has no calibration worth a number
DRAWS = 400
COVERAGES = (0.5, 0.8)


def calibrations(tasks: list[TaskRows], seed: int) -> list[dict[str, Any]]:
    """One entry a task and side (before, after); probabilities are the softmax of the options' log-probabilities.

    `ece` (equal width) and `ece_mass` (equal mass) with bootstrap intervals, `brier` and `nll` over all options, `gap`
    (confidence minus accuracy: positive is overconfident), `temperature` fitted on one half with the `ece` before and
    after it on the other half, `selective` (accuracy of the surest share of the rows), `bins` for a picture.
    """
    found = []
    for task in tasks:
        if not task.graded:
            continue
        for side, rows in (("before", task.before), ("after", task.after)):
            entry = _calibration(rows, seed)
            if entry:
                found.append({"task": task.task, "side": side, **entry})
    return found


def _calibration(rows: list[Row], seed: int) -> dict[str, Any] | None:
    kept = [(p, row) for row in rows if (p := probabilities(row)) and 0 <= int(row.get("gold", -1)) < len(p)]
    if len(kept) < SMALLEST:
        return None
    p_gold = np.array([p[int(row["gold"])] for p, row in kept])
    confidence = np.array([max(p) for p, _ in kept])
    right = np.array([p.index(max(p)) == int(row["gold"]) for p, row in kept], dtype=float)
    squares = np.array([sum(x * x for x in p) for p, _ in kept])
    entry: dict[str, Any] = {"n": len(kept), "accuracy": float(right.mean()), "confidence": float(confidence.mean())}
    entry |= {"gap": float(confidence.mean() - right.mean()), "nll": float(-np.log(np.maximum(p_gold, 1e-12)).mean())}
    entry |= {"brier": float((squares - 2 * p_gold + 1).mean())}
    rng = np.random.default_rng(seed)
    for name, measure in (("ece", ece), ("ece_mass", ece_mass)):
        draws = [
            measure(confidence[i], right[i]) for i in (rng.integers(0, len(kept), len(kept)) for _ in range(DRAWS))
        ]
        low, high = np.quantile(draws, [0.025, 0.975])
        entry |= {name: measure(confidence, right), f"{name}_low": float(low), f"{name}_high": float(high)}
    order = np.argsort(-confidence, kind="stable")
    chosen = {c: right[order[: max(1, round(c * len(kept)))]] for c in COVERAGES}
    entry["selective"] = {f"{c:.0%}": float(x.mean()) for c, x in chosen.items()}
    return entry | {"bins": _bins(confidence, right), "temperature": _temperature(kept, seed)}


def ece(confidence: Any, right: Any) -> float:
    """Expected calibration error over 15 bins of equal width. Source: Naeini et al. 2015."""
    return _error(np.minimum((confidence * BINS).astype(int), BINS - 1), confidence, right)


def ece_mass(confidence: Any, right: Any) -> float:
    """The same over 15 bins of equal size, which small samples bias less. Source: Nixon et al. 2019."""
    ranks = np.argsort(np.argsort(confidence, kind="stable"), kind="stable")
    return _error(ranks * BINS // len(confidence), confidence, right)


def _error(places: Any, confidence: Any, right: Any) -> float:
    sums = np.bincount(places, weights=confidence - right, minlength=BINS)
    return float(np.abs(sums).sum() / len(confidence))


def _bins(confidence: Any, right: Any) -> list[dict[str, float]]:
    places = np.minimum((confidence * BINS).astype(int), BINS - 1)
    kept = [np.flatnonzero(places == b) for b in range(BINS)]
    return [
        {"confidence": float(confidence[i].mean()), "accuracy": float(right[i].mean()), "n": len(i)}
        for i in kept
        if len(i)
    ]


def _temperature(kept: list[tuple[list[float], Row]], seed: int) -> dict[str, float] | None:
    """Fitted by NLL on one half, judged by ECE on the other; halves follow the row's group."""
    sides = [share(str(row.get("group") or row["row"]), seed + 1) < 0.5 for _, row in kept]
    if min(sum(sides), len(sides) - sum(sides)) < SMALLEST // 2:
        sides = [i % 2 == 0 for i in range(len(kept))]
    halves = [[pair for pair, side in zip(kept, sides, strict=True) if side == which] for which in (True, False)]
    from scipy.optimize import minimize_scalar

    logs = [[np.log(np.maximum(p, 1e-30)) for p, _ in half] for half in halves]
    golds = [[int(row["gold"]) for _, row in half] for half in halves]

    def loss(power: float) -> float:
        beta = float(np.exp(power))
        return float(np.mean([_logsum(beta * x) - beta * x[g] for x, g in zip(logs[0], golds[0], strict=True)]))

    beta = float(np.exp(minimize_scalar(loss, bounds=(-4, 4), method="bounded").x))
    scores = []
    for factor in (1.0, beta):
        shares = [np.exp(factor * x - _logsum(factor * x)) for x in logs[1]]
        right = np.array([float(np.argmax(p) == g) for p, g in zip(shares, golds[1], strict=True)])
        scores.append(ece(np.array([p.max() for p in shares]), right))
    return {"value": 1 / beta, "n": len(logs[1]), "ece_before": scores[0], "ece_after": scores[1]}


def _logsum(x: Any) -> float:
    top = float(x.max())
    return top + float(np.log(np.exp(x - top).sum()))
