"""The command that a new user types first, whole, as a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_the_demo_ends_in_a_report_that_says_what_was_learned(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tuneloop", "demo", "--out", str(tmp_path / "demo"), "--json"],
        capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    folder = Path(json.loads(done.stdout)["folder"])
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "demo" / "round-0" / "analysis" / "tune" / "findings.json").read_text())
    heads = {row["task"]: row for row in found["verdicts"] if row["headline"]}
    for task in ("world_arc_easy", "world_hellaswag", "world_truthfulqa_mc1"):
        assert heads[task]["verdict"] == "better"
        assert heads[task]["low"] > 0.1
        assert not heads[task]["at_chance"]
    assert heads["world_mmlu"]["at_chance"]  # letters: docs/world.md says why
