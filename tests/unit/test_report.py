"""The report from synthetic folders: complete, self-contained, and closed against hostile text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from tuneloop.analyze import analyze
from tuneloop.config import AnalyzeConfig
from tuneloop.report import build_report, safe_json
from tuneloop.store import append_jsonl, write_json, write_table

HOSTILE = '</script><script>alert("x")</script><img src=http://evil.example/x onerror=alert(1)>\u2028&amp;'


def scores_folder(folder: Path, share: float, tasks: tuple[str, ...]) -> Path:
    rows: list[dict[str, Any]] = []
    scores = []
    for task in tasks:
        n = 120
        for i in range(n):
            ok = (i * 37 % 100) / 100 < share
            logs = [0.0 if k == (i + (not ok)) % 4 else -0.8 - k for k in range(4)]
            pred = (i + (not ok)) % 4
            row = {
                "task": task,
                "row": f"{task}/{i}",
                "gold": i % 4,
                "pred": pred,
                "pred_norm": pred,
                "correct": float(ok),
            }
            row |= {"correct_norm": None, "logprobs": logs, "options": [f"answer {k} of {i}" for k in range(4)]}
            row |= {
                "question": f"Question {i}: {HOSTILE if i == 3 else 'which of these is not blue?'}",
                "category": f"c{i % 3}",
            }
            rows.append(row | {"truncated": False, "tie": False, "text_pred": None, "text_gold": None, "group": str(i)})
        right = sum(r["correct"] for r in rows if r["task"] == task) / n
        entry = {"task": task, "metric": "acc", "version": 1, "shots": 0, "n": n, "value": right, "stderr": 0.04}
        entry |= {"low": right - 0.08, "high": right + 0.08, "chance": 0.25, "baselines": {"longest": 0.27}, "note": ""}
        scores.append(entry)
    write_json(folder / "scores.json", {"contender": folder.name, "model": "m", "scores": scores, "warnings": []})
    write_table(folder / "rows.parquet", pa.Table.from_pylist(rows))
    return folder


def _ranked(name: str, value: float, **more: object) -> dict[str, object]:
    line = {"contender": name, "metric": "acc", "n": 120, "value": value, "low": value - 0.1, "high": value + 0.1}
    line |= {
        "tuned": False,
        "chance": 0.25,
        "diff": None,
        "verdict": None,
        "prompt_tokens": 40.0,
        "answer_tokens": None,
    }
    return line | {"seconds": 0.1, "usd": None, "break_even": None} | more


BREAK_EVEN = {"unit": "seconds", "training": 60.0, "saved_per_call": 0.01, "calls": 6000}
TEST = {"contender": "tune", "against": HOSTILE, "n": 120, "diff": 0.3, "low": 0.2, "high": 0.4, "p_adjusted": 0.001}
RANKED = {
    "task": "arc_easy",
    "ranking": [
        _ranked("tune", 0.7, tuned=True, diff=0.4, verdict="better", break_even=BREAK_EVEN),
        _ranked(HOSTILE, 0.35, diff=0.05, verdict="no detectable difference"),
        _ranked("base", 0.3),
    ],
    "verdicts": [TEST | {"verdict": "better"}],
    "tried": {"on_test": 3, "chosen_on_valid_from": {"prompt_search": 16}, "tests": 3},
    "recommendation": {"do": "tune", "contender": "tune", "reason": f"better than {HOSTILE}"},
}


def data_profile() -> dict[str, Any]:
    """As the data stage writes it, with text of rows that must not become markup."""
    spread = {"min": 1, "median": 5, "p95": 9, "max": 10, "mean": 5.0, "total": 450}
    characters = {"prompt": spread, "answer": spread, "histogram": {"edges": [1, 4, 11], "counts": [30, 60]}}
    benchmark = {"benchmark": "arc", "items": 4, "items_repeated": 1, "share": 0.25, "rows": 2, "rows_out": 1}
    find = {
        "benchmark": "arc",
        "rule": "whole string",
        "share": 1.0,
        "where": HOSTILE,
        "row": HOSTILE,
        "item": "an item",
    }
    dropped = {"id": "a", "prompt": HOSTILE, "answer": "x", "reason": "near_duplicate", "similarity": 0.91}
    return {
        "rows_in": 100, "kept": 90, "rejected": 10, "reasons": {"duplicate": 7, HOSTILE: 3},
        "splits": {"train": 80, "valid": 5, "test": 5}, "characters": characters, "languages": {"en": 90},
        "sources": [{"uri": HOSTILE, "rows_in": 100, "kept": 90, "rejected": 10, "licence": "MIT"}],
        "clusters": [{"kept": "b", "prompt": "kept row", "answer": "x", "rows": 2, "dropped": [dropped]}],
        "large_groups": [{"rows": 50, "threshold": 0.9, "prompt": HOSTILE}], "labels": {"l": 90},
        "balance": [{"label": HOSTILE, "rows": 90, "characters": 7.5, "sources": {"a/b.jsonl": 90}}],
        "contamination": {"benchmarks": [benchmark], "not_checked": ["mmlu"], "finds": [find]},
    }  # fmt: skip


def example_report(top: Path, *, max_rows: int = 300) -> Path:
    """A whole round of synthetic folders and its report.html."""
    tasks = ("arc_easy", "mmlu")
    shares = {"base": 0.3, "base-prompted": 0.35, "tune": 0.7}
    for name, share in shares.items():
        scores_folder(top / "compare" / name, share, tasks)
    write_json(top / "compare" / "contenders.json", {"contenders": [{"name": name} for name in shares], **RANKED})
    for step in range(60):
        extra = {"valid_loss": 2.2 - step / 60} if step % 20 == 19 else {}
        append_jsonl(top / "log.jsonl", {"step": step, "loss": 2.5 - step / 50, "lr": 1e-4 * step / 60, **extra})
    (top / "model").mkdir()
    (top / "log.jsonl").rename(top / "model" / "log.jsonl")
    write_json(top / "data" / "profile.json", data_profile())
    found = [
        analyze(AnalyzeConfig(), top / "compare" / name, top / "analysis" / name, against=top / "compare" / "base")
        for name in ("base-prompted", "tune")
    ]
    out = build_report(
        top / "report",
        data=top / "data",
        models=[top / "model"],
        compare=top / "compare",
        analyses=found,
        timings={"data": 1.0, "train": 42.5, "evaluate": 12.0},
        title=f"A report {HOSTILE}",
        max_rows=max_rows,
    )
    return out / "report.html"


def test_every_part_stands(tmp_path: Path) -> None:
    page = example_report(tmp_path).read_text(encoding="utf-8")
    for part in ("better on", "Scores", "Paired tests", "Findings", "Training", "Weakest slices", "Causes", "Data"):
        assert part in page
    for part in ("80, valid 5", "0.91", "an item", "mmlu", 'class="block"', "regrouped at similarity 0.9"):
        assert part in page
    assert "Where the time went" in page
    assert "duplicate" in page
    assert page.count('class="dot"') == 6 + 3
    for part in ("Use the tune.", "3 contenders touched the test split", "paid after 6,000 calls", "from 16"):
        assert part in page


def test_hostile_text_cannot_break_out(tmp_path: Path) -> None:
    page = example_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert not re.search(r"<(?:link|iframe|object|embed)\b", page)
    assert not re.search(r"<[^>]*\b(?:src|href)\s*=", page)
    assert "@import" not in page
    assert "url(" not in page


def test_rows_errors_first_and_bounded(tmp_path: Path) -> None:
    page = example_report(tmp_path, max_rows=50).read_text(encoding="utf-8")
    found = re.search(r'id="data">(.*?)</script>', page, re.DOTALL)
    assert found
    rows = json.loads(found[1])
    assert len(rows) == 50
    assert all(row["wrong"] for row in rows)
    assert "total = 480" in page


def test_report_of_nothing(tmp_path: Path) -> None:
    out = build_report(tmp_path, data=None, models=[], compare=None, analyses=[], timings={}, title="empty")
    assert "No comparison" in (out / "report.html").read_text(encoding="utf-8")


def test_safe_json_round_trip() -> None:
    text = safe_json([HOSTILE, "\ud800"])
    assert "<" not in text
    assert json.loads(text)[0] == HOSTILE


def _share(value: float) -> dict[str, float]:
    return {"n": 50, "value": value, "low": value - 0.1, "high": value + 0.1}


def test_the_page_of_a_loop_counts_readings_and_shows_rounds_against_control(tmp_path: Path) -> None:
    from tuneloop.loop import report_round

    loop = tmp_path / "loop"
    rounds: list[dict[str, Any]] = []
    for k in range(2):
        found = {"what": f"<b>gap {k}</b>", "how_sure": "counted"}
        write_json(loop / f"round-{k}" / "analysis" / "tune" / "findings.json", {"findings": [found]})
        rounds.append({"analysis": str(loop / f"round-{k}" / "analysis" / "tune")})
    rounds[1] |= {"added": 40, "dropped": 0, "laid_out": 3, "halved": 1, "learning_rate": 1e-4, "gain": True}
    pair = {"n": 50, "lost": 1, "gained": 11, "diff": 0.2, "low": 0.08, "high": 0.31, "p": 0.006}
    none = {"n": 0, "lost": 0, "gained": 0, "diff": 0.0, "low": 0.0, "high": 0.0, "p": 1.0}
    tasks = {name: [{"task": "quiz", "slice": _share(v), "rest": None}]
             for name, v in (("base", 0.2), ("round-0", 0.5), ("round-1", 0.8), ("control", 0.6))}  # fmt: skip
    parts = {"slice": pair, "elsewhere": none}
    by_round = {name: {"against": "control", **parts} for name in ("round-0", "round-1")}
    against = {"base": parts, "control": parts}
    verdict = {"contenders": tasks, "last": "round-1", "names": ["<wish>"], "reads": 2, "against": against}
    verdict["by_round"] = by_round
    write_json(loop / "loop.json", {"rounds": rounds, "stopped": "", "config": {}, "verdict": verdict})
    lines = [{"when": "2026-01-01T00:00:00+00:00", "key": "a"}, {"when": "2026-01-02T00:00:00+00:00", "key": "b"}]
    (loop / "reads.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = (report_round(loop, tmp_path / "report", "a loop") / "report.html").read_text(encoding="utf-8")
    assert "was read 2 times: 2026-01-01T00:00:00+00:00, 2026-01-02" in page and "too kind" in page
    assert page.count("<td>control</td>") == 2  # each round against it, elsewhere without rows left out
    assert "+20.0 points (+8.0 to +31.0), p 0.006, 50 rows" in page
    assert "40 rows added; 3 rows laid out anew; learning rate halved to 0.0001." in page
    assert "&lt;b&gt;gap 1&lt;/b&gt;" in page and "&lt;wish&gt;" in page and "<wish>" not in page
    assert "http://" not in page and "https://" not in page
