"""Writes docs/errors.md from the code: every coded error, its exit code and where it is raised.

python scripts/errors_doc.py            writes the page
python scripts/errors_doc.py --check    exit 1 when the page is out of date
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "errors.md"
EXITS = {"UsageError": 2, "PrerequisiteError": 3, "DataError": 4, "PartialError": 5}
HEAD = """# Errors

Every mistake of a user is answered with a code, the place, what was expected and what to do. Exit codes: 0 done ·
1 a bug (the only case with a traceback) · 2 usage or config · 3 something is missing here · 4 the data cannot be used ·
5 a partial result was kept · 130 / 143 interrupted, state saved. `--json` prints the same as an object.

Made by `python scripts/errors_doc.py`; a name in braces stands for a value.

| code | exit | what is wrong | raised in |
|---|---|---|---|
"""


def words(node: ast.expr) -> str:
    """The text of a string or f-string, values as names in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(words(part) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return "{" + ast.unparse(node.value) + "}"
    return "{" + ast.unparse(node) + "}"


def errors(path: Path) -> list[tuple[int, int, str, str]]:
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in EXITS
            and len(node.args) > 1
        ):
            number, what = node.args[:2]
            if isinstance(number, ast.Constant):
                place = str(path.relative_to(ROOT / "src" / "tuneloop"))
                found.append((int(number.value), EXITS[node.func.id], " ".join(words(what).split()), place))
    return found


def page() -> str:
    rows = sorted({row for path in sorted((ROOT / "src").rglob("*.py")) for row in errors(path)})
    lines = [f"| TL-{n:03d} | {code} | {what.replace('|', '/')} | `{place}` |" for n, code, what, place in rows]
    return HEAD + "\n".join(lines) + "\n"


def main() -> None:
    if "--check" in sys.argv:
        raise SystemExit(0 if PAGE.read_text(encoding="utf-8") == page() else "docs/errors.md is out of date")
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
