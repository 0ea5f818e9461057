"""Reads the imports of src/tuneloop and fails on a forbidden edge: upward, between stages, or in a circle."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tuneloop"
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 60

LAYERS: dict[str, int] = {
    **dict.fromkeys(["errors"], 1),
    **dict.fromkeys(["text", "language", "store", "config", "console", "stage"], 2),
    **dict.fromkeys(["records", "scored", "stats"], 3),
    **dict.fromkeys(["prompts", "models", "world", "lm"], 4),
    **dict.fromkeys(["tasks", "metrics", "scoring", "judge", "neighbours"], 5),
    **dict.fromkeys(["data", "generate", "train", "evaluate", "analyze", "report", "serve"], 6),
    **dict.fromkeys(["loop", "doctor", "llama", "teacher"], 7),
    **dict.fromkeys(["cli", "__main__"], 8),
    **dict.fromkeys(["rounds"], 7),
}
STAGE_LAYER = 6
# The world is a measuring instrument: what it measures must not know it. `models` finds its base by path.
WORLD_READERS = {"loop", "doctor", "llama", "teacher", "cli", "world"}


@dataclass(frozen=True)
class Edge:
    importer: str  # dotted, with the package name
    imported: str
    line: int


def _parsed(text: str, name: str = "text") -> ast.Module:
    """CPython 3.11 loses count of its depth when another parse begins inside this one (gh-106905): once more, then."""
    try:
        return ast.parse(text, name)
    except SystemError:
        return ast.parse(text, name)


def module_name(path: Path, package: Path) -> str:
    parts = [package.name, *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def modules_of(package: Path) -> dict[str, Path]:
    return {module_name(path, package): path for path in sorted(package.rglob("*.py"))}


def is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def import_nodes(node: ast.AST) -> list[ast.Import | ast.ImportFrom]:
    """Every import below `node`, also inside functions; TYPE_CHECKING bodies are not read."""
    found: list[ast.Import | ast.ImportFrom] = []
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            found.append(child)
        elif isinstance(child, ast.If) and is_type_checking(child.test):
            for other in child.orelse:
                found += import_nodes(ast.Module(body=[other], type_ignores=[]))
        else:
            found += import_nodes(child)
    return found


def targets(node: ast.Import | ast.ImportFrom, importer: str, is_package: bool, known: set[str]) -> set[str]:
    """The modules of our package that one statement imports; `from a import b` means a.b where that is a module."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in known}
    base = node.module or ""
    if node.level:
        parts = importer.split(".")
        keep = len(parts) - node.level + (1 if is_package else 0)
        base = ".".join([*parts[:keep], *([node.module] if node.module else [])])
    result = set()
    for alias in node.names:
        child = f"{base}.{alias.name}"
        if child in known:
            result.add(child)
        elif base in known:
            result.add(base)
    return result


def edges_of(package: Path) -> list[Edge]:
    modules = modules_of(package)
    known = set(modules)
    edges = []
    for name, path in modules.items():
        tree = _parsed(path.read_text(encoding="utf-8"), str(path))
        for node in import_nodes(tree):
            for target in targets(node, name, path.name == "__init__.py", known):
                if target != name:
                    edges.append(Edge(name, target, node.lineno))
    return edges


def unit_of(module: str) -> str:
    """`tuneloop.data.read` -> `data`; the package itself -> ''."""
    return module.split(".")[1] if "." in module else ""


def layer_faults(package: Path, layers: dict[str, int], world_readers: set[str]) -> list[str]:
    faults = []
    for name in modules_of(package):
        if unit_of(name) and unit_of(name) not in layers:
            faults.append(f"{name}: not in the list of layers")
    for edge in edges_of(package):
        source, target = unit_of(edge.importer), unit_of(edge.imported)
        if source == target or not source or source not in layers or target not in {*layers, ""}:
            continue
        if not target:
            continue  # the package's own __init__ holds the version and late names only
        place = f"{edge.importer}:{edge.line} imports {edge.imported}"
        if layers[target] > layers[source]:
            faults.append(f"{place}: upward, layer {layers[source]} -> {layers[target]}")
        elif layers[target] == layers[source] == STAGE_LAYER:
            faults.append(f"{place}: one stage imports another")
        if target == "world" and source not in world_readers:
            faults.append(f"{place}: only {sorted(world_readers)} may know the world")
    return faults


def circles(package: Path) -> list[list[str]]:
    """Groups of two or more modules that reach each other by imports, late ones included (Tarjan's components).

    A child's import of a name from its own package's __init__ is such an edge too.
    """
    graph: dict[str, set[str]] = {name: set() for name in modules_of(package)}
    for edge in edges_of(package):
        graph[edge.importer].add(edge.imported)
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for target in graph[name]:
            if target not in index:
                visit(target)
                low[name] = min(low[name], low[target])
            elif target in stack:
                low[name] = min(low[name], index[target])
        if low[name] == index[name]:
            at = stack.index(name)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def length_faults(package: Path) -> list[str]:
    faults = []
    for name, path in modules_of(package).items():
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            faults.append(f"{name}: {lines} lines, at most {MAX_FILE_LINES}")
        for node in ast.walk(_parsed(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                size = node.end_lineno - node.lineno + 1
                if size > MAX_FUNCTION_LINES:
                    faults.append(f"{name}:{node.lineno} {node.name}: {size} lines, at most {MAX_FUNCTION_LINES}")
    return faults


def test_no_edge_goes_up_or_between_stages() -> None:
    assert layer_faults(SOURCE, LAYERS, WORLD_READERS) == []


def test_no_import_circle() -> None:
    assert circles(SOURCE) == []


def test_files_and_functions_stay_short() -> None:
    assert length_faults(SOURCE) == []


# The checker itself, on a small tree.


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    package = tmp_path / "tuneloop"
    files = {
        "__init__.py": "__version__ = '1'\n",
        "errors.py": "",
        "store.py": "from tuneloop.errors import TuneloopError\n",
        "data/__init__.py": "from tuneloop.data.read import rows\n",
        "data/read.py": "from ..store import open_run\nfrom tuneloop import errors, __version__\n",
        "train/__init__.py": "import tuneloop.store\n",
        "world/__init__.py": "",
        "loop.py": "from tuneloop import data, train, world\n",
    }
    for name, text in files.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return package


def test_checker_accepts_a_sound_tree(tree: Path) -> None:
    assert layer_faults(tree, LAYERS, WORLD_READERS) == []
    assert circles(tree) == []
    assert length_faults(tree) == []
    found = {(edge.importer, edge.imported) for edge in edges_of(tree)}
    assert ("tuneloop.data.read", "tuneloop.store") in found  # relative
    assert ("tuneloop.loop", "tuneloop.train") in found  # from package import module


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("from tuneloop.loop import run\n", "upward, layer 2 -> 7"),
        ("def late():\n    import tuneloop.loop\n", "upward, layer 2 -> 7"),
        ("try:\n    from .loop import run\nexcept ImportError:\n    pass\n", "upward, layer 2 -> 7"),
    ],
)
def test_checker_finds_a_planted_upward_edge(tree: Path, text: str, fault: str) -> None:
    (tree / "store.py").write_text(text, encoding="utf-8")
    (found,) = layer_faults(tree, LAYERS, WORLD_READERS)
    assert fault in found


def test_checker_skips_what_only_the_type_checker_reads(tree: Path) -> None:
    (tree / "store.py").write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tuneloop.loop import run\n", encoding="utf-8"
    )
    assert layer_faults(tree, LAYERS, WORLD_READERS) == []


def test_checker_finds_stage_to_stage_the_world_and_a_stranger(tree: Path) -> None:
    (tree / "train" / "steps.py").write_text(
        "from tuneloop.data import rows\nfrom tuneloop import world\n", encoding="utf-8"
    )
    (tree / "misc.py").write_text("", encoding="utf-8")
    faults = "\n".join(layer_faults(tree, LAYERS, WORLD_READERS))
    assert "one stage imports another" in faults
    assert "may know the world" in faults
    assert "tuneloop.misc: not in the list of layers" in faults


def test_checker_finds_a_planted_circle(tree: Path) -> None:
    (tree / "data" / "one.py").write_text("from tuneloop.data.two import x\n", encoding="utf-8")
    (tree / "data" / "two.py").write_text("from . import three\n", encoding="utf-8")
    (tree / "data" / "three.py").write_text("from .one import y\n", encoding="utf-8")
    assert circles(tree) == [["tuneloop.data.one", "tuneloop.data.three", "tuneloop.data.two"]]


def test_checker_finds_what_is_too_long(tree: Path) -> None:
    (tree / "store.py").write_text("def long():\n" + "    pass\n" * 60 + "\n" * 340, encoding="utf-8")
    assert len(length_faults(tree)) == 2
