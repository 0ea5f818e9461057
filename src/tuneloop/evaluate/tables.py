"""Tables for a terminal of 100 columns: scores, ranked contenders, many runs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuneloop.evaluate.seeds import spread_text
from tuneloop.scored import read_scores

Entry = dict[str, Any]
WIDTH = 100


def _number(value: Any, form: str = ".4f") -> str:
    return "-" if value is None else format(value, form)


def score_lines(scores: Sequence[Entry]) -> list[str]:
    """A line a score: value, interval, chance, the best trivial baseline, n, and what could be detected."""
    lines = [f"{'task':<24} {'metric':<14} {'value':>8} {'95 % interval':>19} {'chance':>8} {'trivial':>8} {'n':>7}"]
    before = ""
    for s in scores:
        interval = f"[{_number(s['low'])}, {_number(s['high'])}]"
        trivial = max((s.get("baselines") or {}).values(), default=None)
        lines.append(
            f"{s['task'][:24]:<24} {s['metric'][:14]:<14} {_number(s['value']):>8} {interval:>19} "
            f"{_number(s.get('chance')):>8} {_number(trivial):>8} {s['n']:>7,}"
        )
        if s.get("seeds"):
            lines += _wrapped(f"{'':<24} {spread_text(s)}")
        if s.get("detectable") is not None:
            lines.append(f"{'':<24} detects a difference of {s['detectable']:.3g} to another model")
        if s.get("note") and s["note"] != before:
            lines += _wrapped(f"{'':<24} {s['note']}")
        before = s.get("note", "")
    return lines


def compare_lines(found: Entry) -> list[str]:
    """The ranked table, the tests of tunes against prompts, how many were tried, and what to do."""
    ranking = found.get("ranking") or []
    if not ranking:
        return ["nothing was scored on both sides"]
    first = ranking[0]
    sources = next((t["clusters"] for t in found["verdicts"] if t["task"] == found["task"] and t.get("clusters")), None)
    many = f" from {sources:,} sources" if sources else ""
    lines = [f"{found['task']}, {first['metric']}, n {first['n']:,}{many}; chance {_number(first['chance'])}"]
    lines.append(
        f"{'contender':<18} {'score':>6} {'95 % interval':>14} {'+/-':>6}  {'verdict':<24} "
        f"{'tokens':>10} {'s':>6} {'$/1000':>7}"
    )
    for r in ranking:
        tokens = f"{_number(r['prompt_tokens'], '.0f')}+{_number(r['answer_tokens'], '.0f')}"
        dollars = None if r["usd"] is None else 1000 * r["usd"]
        cost = f"{_number(r['seconds'], '.3f'):>6} {_number(dollars, '.3f'):>7}"
        interval = f"[{_number(r['low'], '.3f')},{_number(r['high'], '.3f')}]"
        points = "" if r["diff"] is None else f"{100 * r['diff']:+.1f}"
        lines.append(
            f"{r['contender'][:18]:<18} {_number(r['value'], '.3f'):>6} {interval:>14} {points:>6}  "
            f"{r['verdict'] or 'the base':<24} {tokens:>10} {cost}"
        )
    lines.append("+/-: points to the base; tokens: prompt + answer; s: seconds a row here, every option scored")
    lines += _tests(found)
    for text in ["", *_paid(ranking), _tried(found["tried"])]:
        lines += _wrapped(text) or [""]
    advice = found["recommendation"]
    return [*lines, "", f"recommendation: {advice['do']}", *_wrapped(advice["reason"], "  ")]


def _tests(found: Entry) -> list[str]:
    own = {r["contender"] for r in found["ranking"] if r["tuned"]}
    listed = [t for t in found["verdicts"] if t["contender"] in own and t["against"] != found["contenders"][0]["name"]]
    lines = ["", "tunes against the rest, paired:"] if listed else []
    for t in listed:
        change = f"{100 * t['diff']:+.1f} [{100 * t['low']:+.1f}, {100 * t['high']:+.1f}]" if t["n"] else "-"
        lines.append(
            f"  {t['contender'][:14]:<14} - {t['against'][:18]:<18} {change:>21}  p {t['p_adjusted']:<7.2g} "
            f"{t['verdict']}"
        )
    return lines


def _paid(ranking: list[Entry]) -> list[str]:
    lines = []
    for r in ranking:
        even = r["break_even"]
        if even and even["calls"]:
            unit = "$" if even["unit"] == "usd" else "s of this machine"
            lines.append(
                f"break-even: {r['contender']} cost {even['training']:.4g} {unit} to train and saves "
                f"{even['saved_per_call']:.2g} {unit} a call: {even['calls']:,} calls"
            )
    return lines


def _tried(tried: Entry) -> str:
    chosen = ", ".join(f"{n} from {k}" for n, k in tried["chosen_on_valid_from"].items())
    touched = f"{tried['on_test']} contenders touched the test split, once each"
    more = f"; chosen on valid rows: {chosen}" if chosen else ""
    return f"{touched}; verdicts corrected for {tried['tests']} tests{more}"


def _wrapped(text: str, indent: str = "") -> list[str]:
    import textwrap

    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent="  ")


def run_lines(folders: Sequence[Path]) -> list[str]:
    """Many runs and models in one table: a line a task and metric, a column a run; '*' where the rows differ from the
    first run's, which makes the numbers no comparison."""
    runs = [read_scores(folder) for folder in folders]
    names = [_short(str(head.get("contender") or ""), folder) for (head, _), folder in zip(runs, folders, strict=True)]
    keys = dict.fromkeys((s["task"], s["metric"]) for head, _ in runs for s in head["scores"])
    ids = [_ids(rows) for _, rows in runs]
    room = max(9, min(18, (WIDTH - 36) // max(1, len(runs))))
    lines = [f"{'task':<22} {'metric':<12} " + " ".join(f"{n[:room]:>{room}}" for n in names)]
    for task, metric in keys:
        cells = []
        for (head, _), own in zip(runs, ids, strict=True):
            entry = next((s for s in head["scores"] if (s["task"], s["metric"]) == (task, metric)), None)
            same = own.get(task) == next((i[task] for i in ids if task in i), None)
            cells.append("-" if entry is None else f"{_cell(entry)}{'' if same else '*'}")
        lines.append(f"{task[:22]:<22} {metric[:12]:<12} " + " ".join(f"{c:>{room}}" for c in cells))
    if any(cell.endswith("*") for line in lines for cell in line.split()):
        lines.append("* scored on other rows than the first run: not comparable")
    return lines


def _ids(rows: list[Entry]) -> dict[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(str(row["task"]), set()).add(f"{row['row']} {row.get('gold')} {row.get('text_gold')}")
    return {task: frozenset(keys) for task, keys in found.items()}


def _short(contender: str, folder: Path) -> str:
    return folder.name if contender in ("", "base") or contender == folder.name else f"{folder.name}/{contender}"


def _cell(entry: Entry) -> str:
    error = entry.get("stderr")
    return _number(entry["value"], ".3f") + (f"±{1.96 * error:.3f}" if error is not None else "")


def diff_lines(found: Entry, show: int) -> list[str]:
    """Paired tests of two runs and the first rows that changed."""
    lines = []
    for t in found["tests"]:
        lines.append(
            f"{t['task'][:30]:<30} {t['metric'][:14]:<14} {_number(t['before'], '.3f')} -> "
            f"{_number(t['after'], '.3f')}  {t['verdict']}"
        )
        sources = f" from {t['clusters']:,} sources" if t.get("clusters") else ""
        flips = "" if t.get("b") is None else f"; {t['b']:,} lost, {t['c']:,} won"
        middle = f" (mid-p alone {t['p_mid']:.2g})" if "p_mid" in t else ""
        lines.append(f"  n {t['n']:,}{sources}{flips}; p {t['p_adjusted']:.2g}{middle}, {t.get('test', 'no pairs')}")
    for t in found["categories"]:
        lines.append(
            f"  {t['category'][:40]:<40} {100 * t['diff']:+.1f} points, n {t['n']:,}, p {t['p_adjusted']:.2g} "
            f"among {t['of']} categories"
        )
    for where, tasks in found["only"].items():
        lines.append(f"only in {where}: {', '.join(tasks)}")
    rows = found["changed"]
    lines.append(f"{len(rows):,} rows changed" + (", first:" if rows and show else ""))
    for r in rows[:show]:
        lines.append(f"  {r['task']} {r['row']}: {_number(r['before'], '.3g')} -> {_number(r['after'], '.3g')}")
        lines.append(f"    {_line(r['question'])}")
        lines.append(f"    before: {_line(r['said_before'])}   after: {_line(r['said'])}")
    return lines


def judged_lines(tasks: Sequence[Entry]) -> list[str]:
    """The share of pairs that the first run wins, by task."""
    lines = []
    for t in tasks:
        win = f"{_number(t['win'], '.3f')} [{_number(t['low'], '.3f')}, {_number(t['high'], '.3f')}]"
        lines.append(
            f"{t['task'][:24]:<24} wins {win} of {t['pairs']:,} pairs, p {t['p']:.2g}; unread {t['unread']:,}, "
            f"by place {t['by_place']:,}"
        )
    return lines


def _line(text: str) -> str:
    from tuneloop.text import shorten

    return shorten(text, 40 if len(text) < 200 else 80)
