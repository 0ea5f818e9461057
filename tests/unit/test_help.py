"""`tuneloop --help` answers without the heavy libraries; benchmarks/help_time.py measures the seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "transformers", "datasets", "peft", "pandas", "sklearn", "scipy", "pyarrow", "openai"}

PROBE = """
import sys
sys.argv = ["tuneloop", *{arguments!r}]
from tuneloop.cli import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
print("MODULES", *sorted({{name.split(".")[0] for name in sys.modules}}))
"""


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(arguments=arguments)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    text, _, modules = done.stdout.rpartition("MODULES ")
    assert "Usage" in text
    assert not HEAVY & set(modules.split())


def test_the_probe_sees_a_heavy_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import scipy\n" + PROBE.format(arguments=["--help"])],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "scipy" in done.stdout.rpartition("MODULES ")[2].split()
