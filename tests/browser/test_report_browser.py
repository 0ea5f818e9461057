"""The report in a headless Chromium: the rows are drawn by its script, hostile text stays text."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.unit.test_report import example_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


def dump(page: Path, profile: Path) -> str:
    """The document after its scripts ran."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return done.stdout


def test_rows_and_tables_are_drawn(tmp_path: Path) -> None:
    page = dump(example_report(tmp_path), tmp_path / "profile")
    assert page.count('class="card row"') == 25
    assert re.search(r"\d+ of 300 rows here, page 1 of 12", page)
    assert "480 rows in all" in page
    table = re.search(r'<table id="scores">(.*?)</table>', page, re.DOTALL)
    assert table
    assert table[1].count("<tr>") == 3
    for text in ('<option value="tune">', '<option value="mmlu">', '<option value="confident wrong">'):
        assert text in page


def test_nothing_is_loaded_and_nothing_hostile_runs(tmp_path: Path) -> None:
    page = dump(example_report(tmp_path), tmp_path / "profile")
    assert page.count("<script") == 2
    assert "<img" not in page
    assert not re.search(r"<[a-z]+[^>]*\s(?:src|href|onerror)\s*=", page)
