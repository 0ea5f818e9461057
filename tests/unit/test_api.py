"""The public names, in any order of import: a stage package and its function share a name."""

from __future__ import annotations

import subprocess
import sys

import pytest

STAGES = ("prepare", "train", "evaluate", "compare", "analyze", "run")


@pytest.mark.parametrize("before", ["", "import tuneloop.train, tuneloop.evaluate, tuneloop.analyze\n"])
def test_public_names_are_callable(before: str) -> None:
    code = before + "import tuneloop as tl\n" + "".join(f"assert callable(tl.{name}), '{name}'\n" for name in STAGES)
    code += "assert callable(tl.train) and sorted(tl.__all__) == tl.__all__\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
