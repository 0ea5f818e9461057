"""What the stage says: refusals that stop it, the summary by reason, and the two texts of an overlap."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from tuneloop.console import say, warn
from tuneloop.data import formats
from tuneloop.data.duplicates import CODES, Decisions
from tuneloop.data.keys import Keys, read_shard
from tuneloop.data.ops import REJECTED, RULES, Context
from tuneloop.data.rows import REASONS, describe
from tuneloop.errors import DataError
from tuneloop.neighbours.overlap import OverlapIndex
from tuneloop.records import Rejected, iter_rejected
from tuneloop.text import shorten

SHOWN = 5
COLUMNS = [f"r_{name}" for name in REJECTED]
# Reasons that come from decisions between rows, not from a row by itself.
BETWEEN = set(CODES)


def reasons(keys: Keys, decided: Decisions) -> Counter[str]:
    """How many rows went for each reason, those of the first pass included."""
    found: Counter[str] = Counter()
    for path in keys.shards:
        found.update(read_shard(path, ["r_reason"])["r_reason"].drop_null().to_pylist())
    codes = np.bincount(decided.code[keys.ok], minlength=len(CODES))
    found.update({CODES[i]: int(n) for i, n in enumerate(codes) if i and n})
    return found


def _first_refused(shards: list[Path], uris: list[str]) -> Rejected | None:
    import pyarrow.compute as pc

    for path in shards:
        table = read_shard(path, [*COLUMNS, "k_line", "k_part"])
        bad = table.filter(pc.is_valid(table["r_reason"])).slice(0, 1).to_pylist()
        if bad:
            held = {name: bad[0][f"r_{name}"] or "" for name in REJECTED}
            return Rejected(**held, uri=uris[bad[0]["k_part"]], line=bad[0]["k_line"])
    return None


def check_kept(keys: Keys, shards: list[Path], sources: list[dict[str, Any]]) -> None:
    """Raises DataError 309 when no row could be read."""
    if not keys.ok.any():
        nothing_left(keys, shards, sources, Decisions.of(keys.count))


def nothing_left(keys: Keys, shards: list[Path], sources: list[dict[str, Any]], decided: Decisions) -> NoReturn:
    ranked = reasons(keys, decided).most_common()
    listed = ", ".join(f"{n:,} {reason}" for reason, n in ranked) or "no rows were rejected"
    worst = _first_refused(shards, keys.uris)
    first = f"; first: {describe(worst)}" if worst else ""
    total = sum(source["rows_in"] for source in sources)
    what = "no training rows are left" if keys.ok.any() else "no row could be kept"
    raise DataError(
        309,
        f"{what} of {total:,}: {listed}",
        where=", ".join(source["uri"] for source in sources)[:300],
        expected="rows of one of: " + ", ".join(formats.NAMES),
        cure=f"name the columns (--set data.columns.question=... data.columns.answer=...){first}",
    )


def stop_at_first(table: Any, context: Context) -> None:
    """Raises DataError 345 for the first bad row: what `data.strict` asks for."""
    import pyarrow.compute as pc

    bad = table.filter(pc.is_valid(table["r_reason"])).slice(0, 1).to_pylist()
    if not bad:
        return
    held = {name: bad[0][f"r_{name}"] or "" for name in REJECTED}
    row = Rejected(**held, uri=context.parts[bad[0]["k_part"]].uri, line=bad[0]["k_line"])
    number, words = REASONS[row.reason]
    what, where = (
        f"{words} (TL-{number}): {shorten(row.value, 120)}",
        f"{row.uri}:{row.line} ({row.field or 'the row'})",
    )
    raise DataError(345, what, where=where, expected="no bad row, since data.strict is set", cure=row.cure)


def find(keys: Keys, index: OverlapIndex, row: int, texts: tuple[str, str, str]) -> dict[str, Any]:
    """One overlap with both texts, for the profile."""
    item = int(keys["hit"][row])
    name, asked, answer = texts
    where = f"{keys.uris[keys['part'][row]]}:{keys['line'][row]}"
    return {
        "id": name, "where": where, "benchmark": index.names[item], "rule": RULES[keys["hit_rule"][row]],
        "share": round(float(keys["hit_share"][row]), 3), "row": shorten(f"{asked} {answer}", 400),
        "item": shorten(index.texts[item], 400),
    }  # fmt: skip


def summary(profile: dict[str, Any], out: Path) -> None:
    """The first bad rows by place, then tables: reasons, tokens, overlaps."""
    own = 0
    for rejected in iter_rejected(out):
        if rejected.reason in BETWEEN:
            continue
        own += 1
        if own <= SHOWN:
            warn(describe(rejected))
    if own > SHOWN:
        warn(f"... and {own - SHOWN:,} more, all in rejected/")
    sides = ", ".join(f"{name} {n:,}" for name, n in profile["splits"].items())
    pieces = f" + {profile['pieces']:,} pieces of split rows" if profile["pieces"] else ""
    say(
        f"data: {profile['rows_in']:,} rows in{pieces} = {profile['kept']:,} kept ({sides})"
        f" + {profile['rejected']:,} rejected"
    )
    for reason, n in profile["reasons"].items():
        say(f"  {n:>9,} {n / max(1, profile['rows_in']):>7.2%}  {reason:<21} {REASONS[reason][1]}")
    changed = {name: n for name, n in profile["cleaned"].items() if n and name != "rows_changed"}
    if changed:
        say("  cleaned: " + ", ".join(f"{n:,} {name}" for name, n in changed.items()))
    if profile["repeats"]:
        say(f"  laid down again for epochs: {profile['repeats']:,}")
    for side in ("valid", "test"):
        if not profile["splits"][side]:
            warn(f"the {side} split is empty")
    _tokens(profile.get("tokens"))
    _overlaps(profile["contamination"])


def _tokens(found: dict[str, Any] | None) -> None:
    if not found or not found["rows"]:
        return
    say(
        f"  tokens of the training rows, by {shorten(found['model'], 40)} with template "
        f"{shorten(str(found['template']), 20)}:"
    )
    say(f"  {'':<9}{'p5':>8}{'p25':>8}{'median':>8}{'p75':>8}{'p95':>8}{'p99':>8}{'max':>9}{'mean':>9}")
    for name in ("prompt", "answer", "example"):
        row = found[name]
        cells = "".join(f"{row[mark]:>8,}" for mark in ("p5", "p25", "median", "p75", "p95", "p99"))
        say(f"  {name:<9}{cells}{row['max']:>9,}{row['mean']:>9,}")
    share = f"trained {found['trained_share']:.1%}, vocabulary used {found['vocabulary']['share']:.1%}"
    if found.get("packed"):
        share += (
            f", over {found['context']:,}: {found['over_context']:.2%}, packs full to {found['packed']['full']:.1%}"
        )
    say(f"  {share}")


def _overlaps(found: dict[str, Any]) -> None:
    if not found["benchmarks"]:
        return
    say(f"  {'overlap with':<24}{'items':>8}{'repeated':>10}{'share':>8}{'rows found':>12}{'left out':>10}")
    for row in found["benchmarks"]:
        cells = f"{row['items']:>8,}{row['items_repeated']:>10,}{row['share']:>8.2%}"
        cells += f"{row['rows']:>12,}{row['rows_out']:>10,}"
        say(f"  {shorten(row['benchmark'], 23):<24}{cells}")
