"""The paired machinery by simulation: false positives, the exact test's real size, power as planned.

    python benchmarks/paired_tests.py [--quick] [--part mcnemar permutation ...]

Two models answer the same rows. Under the null a row flips in either direction alike; under the alternative more flips
go one way. Judged are the very functions that verdicts use (`stats.paired`, `holm`, `rows_needed`). Prints one JSON
object as its last line; a full run also writes it, dated, to benchmarks/results/, where the parts of several calls come
together.
"""

from __future__ import annotations

import argparse
import datetime
import json
import math
import platform
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from tuneloop import stats

ALPHA = 0.05
Entry = dict[str, Any]


def real_size(n: int, flips: float, test: Any) -> float:
    """The test's exact false-positive rate: over how many of n rows flip, and how they fall. No simulation."""
    total = 0.0
    for k in range(n + 1):
        weight = float(binom.pmf(k, n, flips))
        if weight < 1e-12:
            continue
        falls = binom.pmf(np.arange(k + 1), k, 0.5)
        total += weight * float(sum(falls[b] for b in range(k + 1) if test(b, k - b) <= ALPHA))
    return total


def noise(rate: float, trials: int) -> float:
    """Three standard errors of a simulated rate."""
    return 3 * math.sqrt(rate * (1 - rate) / trials)


def draw(rng: Any, n: int, flips: float, diff: float) -> tuple[Any, Any]:
    """0/1 scores of two models: half of the rows are right before, `flips` of them change, by `diff` more to right."""
    change = rng.random(n)
    lost, won = (flips - diff) / 2, (flips + diff) / 2
    before = (rng.random(n) < 0.5).astype(float)
    after = before.copy()
    before[change < lost], after[change < lost] = 1.0, 0.0
    more = (change >= lost) & (change < lost + won)
    before[more], after[more] = 0.0, 1.0
    return before, after


def mcnemar(trials: int, seed: int) -> list[Entry]:
    """The 0/1 test where there is no difference, and its exact size."""
    rng, found = np.random.default_rng(seed), []
    for n, flips in ((50, 0.1), (200, 0.1), (817, 0.2), (2376, 0.2)):
        hits = sum(stats.paired(*draw(rng, n, flips, 0.0))["p"] <= ALPHA for _ in range(trials))
        entry = {"test": "exact McNemar", "n": n, "flips": flips, "real_size": real_size(n, flips, stats.mcnemar_exact)}
        found.append(_bounded(entry, hits, trials))
    return found


def permutation(trials: int, seed: int) -> list[Entry]:
    """The continuous test where there is no difference; each trial resamples a thousand times."""
    rng, found = np.random.default_rng(seed), []
    for n in (50, 300):
        hits = 0
        for t in range(trials):
            x = rng.gamma(1.0, size=n)
            hits += stats.paired_bootstrap((x - rng.gamma(1.0, size=n)).tolist(), seed=t, n=1000)[2] <= ALPHA
        found.append(_bounded({"test": "sign-flip permutation", "n": n}, hits, trials))
    return found


def clustered(trials: int, seed: int) -> list[Entry]:
    """The test over whole clusters, on rows that share half of their variance with their cluster."""
    rng, found = np.random.default_rng(seed), []
    for clusters, size in ((12, 10), (60, 5)):
        names, hits = [str(i // size) for i in range(clusters * size)], 0
        for t in range(trials):
            diffs = np.repeat(rng.normal(size=clusters), size) + rng.normal(size=clusters * size)
            hits += stats.paired_clustered(diffs.tolist(), names, seed=t, n=1000)[2] <= ALPHA
        entry = {"test": "clustered permutation", "n": clusters * size, "clusters": clusters}
        found.append(_bounded(entry, hits, trials))
    return found


def _bounded(entry: Entry, hits: int, trials: int) -> Entry:
    rate, bound = hits / trials, ALPHA + noise(ALPHA, trials)
    return entry | {"trials": trials, "rate": rate, "bound": bound, "holds": rate <= bound}


def size(_: int, __: int) -> Entry:
    """Real sizes, exact, where a fifth of the rows change."""
    tests = {"exact": stats.mcnemar_exact, "midp": stats.mcnemar_midp}
    rows = (50, 200, 817, 1172, 2376)
    return {name: {str(n): real_size(n, 0.2, test) for n in rows} for name, test in tests.items()}


def family(trials: int, seed: int) -> Entry:
    """Seven contenders and no difference anywhere: how often Holm lets any of seven verdicts through."""
    rng = np.random.default_rng(seed)
    plain = corrected = 0
    for _ in range(trials):
        ps = [stats.paired(*draw(rng, 300, 0.2, 0.0))["p"] for _ in range(7)]
        plain += min(ps) <= ALPHA
        corrected += min(stats.holm(ps)) <= ALPHA
    bound = ALPHA + noise(ALPHA, trials)
    return {
        "contenders": 7, "trials": trials, "uncorrected": plain / trials, "holm": corrected / trials, "bound": bound,
        "holds": corrected / trials <= bound,
    }  # fmt: skip


def power(trials: int, seed: int) -> list[Entry]:
    """Rows as planned for 80 %: the share of runs in which the difference is seen, and the exact value."""
    rng, found = np.random.default_rng(seed), []
    for diff, flips in ((0.02, 0.1), (0.03, 0.2), (0.05, 0.2), (0.1, 0.3)):
        n = stats.rows_needed(diff, flips)
        seen = 0
        for _ in range(trials):
            test = stats.paired(*draw(rng, n, flips, diff))
            seen += stats.verdict(test["p"], test["diff"]) == "better"
        entry = {"points": 100 * diff, "flips": flips, "rows": n, "trials": trials, "power": seen / trials}
        entry |= {"exact": stats.mcnemar_power(n, diff, flips), "bound": 0.8 - noise(0.8, trials)}
        found.append(entry | {"holds": entry["power"] >= entry["bound"]})
    return found


def coverage(trials: int, seed: int) -> list[Entry]:
    """How often the 95 % intervals hold the truth."""
    rng, found = np.random.default_rng(seed), []
    for n, share in ((100, 0.5), (100, 0.02), (1172, 0.25)):
        hits = sum(
            low <= share <= high for low, high in (stats.wilson(int(k), n) for k in rng.binomial(n, share, trials))
        )
        found.append({"interval": "Wilson", "n": n, "share": share, "coverage": hits / trials})
    for n, flips, diff in ((200, 0.2, 0.05), (817, 0.2, 0.0)):
        hits = 0
        for _ in range(trials):
            test = stats.paired(*draw(rng, n, flips, diff))
            hits += test["low"] <= diff <= test["high"]
        found.append({"interval": "paired difference", "n": n, "flips": flips, "diff": diff, "coverage": hits / trials})
    each = 5
    names, hits = [str(i // each) for i in range(60 * each)], 0
    for _ in range(trials):
        x = np.repeat(rng.normal(size=60), each) + rng.normal(size=60 * each)
        _, _, low, high = stats.clustered_interval(x.tolist(), names)
        hits += low <= 0 <= high
    found.append({"interval": "clustered", "n": 300, "clusters": 60, "coverage": hits / trials})
    return found


PARTS = {f.__name__: f for f in (mcnemar, permutation, clustered, size, family, power, coverage)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the trials")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    today = datetime.date.today().isoformat()
    path = Path(__file__).parent / "results" / f"{today}-paired-tests.json"
    result: Entry = {"benchmark": "paired_tests", "date": today, "alpha": ALPHA, "seed": asked.seed, "parts": {}}
    result["machine"] = f"{platform.machine()} {platform.system()}"
    if path.is_file() and not asked.quick:
        result["parts"] = json.loads(path.read_text()).get("parts", {})
    for name in asked.part:
        started = time.monotonic()
        result["parts"][name] = PARTS[name](400 if asked.quick else 4000, asked.seed)
        print(name, f"{time.monotonic() - started:.1f} s", file=sys.stderr)
        parts = [p for part in result["parts"].values() for p in (part if isinstance(part, list) else [part])]
        result["holds"] = all(p.get("holds", True) for p in parts)
        if not asked.quick:
            path.parent.mkdir(exist_ok=True)
            path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
