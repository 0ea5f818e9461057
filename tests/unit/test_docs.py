from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_every_coded_error_is_documented(repo_root: Path) -> None:
    done = subprocess.run([sys.executable, repo_root / "scripts" / "errors_doc.py", "--check"], check=False)
    assert done.returncode == 0, "run python scripts/errors_doc.py"
