from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tuneloop.tasks import build_items, find


def test_every_coded_error_is_documented(repo_root: Path) -> None:
    done = subprocess.run([sys.executable, repo_root / "scripts" / "errors_doc.py", "--check"], check=False)
    assert done.returncode == 0, "run python scripts/errors_doc.py"


def test_the_task_files_of_the_documentation_run(repo_root: Path, tmp_path: Path) -> None:
    text = (repo_root / "docs" / "evaluation.md").read_text(encoding="utf-8")
    files = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", text, re.DOTALL)
    assert [name for name, _ in files] == ["colours.py", "sums.py"]
    tasks = {}
    for name, code in files:
        (tmp_path / name).write_text(code, encoding="utf-8")
        tasks[name] = find(str(tmp_path / name))
        assert build_items(tasks[name]).items
        assert len(code.splitlines()) <= 30
    grade = tasks["sums.py"].grade
    assert grade is not None
    assert grade(" 1", build_items(tasks["sums.py"]).items[0]) == {"numeric": 1.0}
