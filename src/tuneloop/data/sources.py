"""Where rows come from: paths, local copies below $TUNELOOP_DATA, the hub; and which split a file's name gives."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuneloop.config.data import SourceSpec
from tuneloop.console import say
from tuneloop.data.containers import SUFFIXES, TEXT_SUFFIXES, kind, readable
from tuneloop.data.rows import Raw
from tuneloop.errors import DataError, PrerequisiteError, UsageError
from tuneloop.store import read_json, require_run

SPLIT_NAMES = {
    "train": "train", "training": "train", "test": "test", "testing": "test",
    "valid": "valid", "validation": "valid", "val": "valid", "dev": "valid",
}  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One file, or one split of a hub data set. `split` is the hint of its name, if it has one."""

    uri: str
    path: Path | None = None
    split: str | None = None
    hub: tuple[str, str | None, str] | None = None


@dataclass(frozen=True)
class Found:
    """A source with what it stands for: a path, several that a pattern names, or the hub where there is none."""

    spec: SourceSpec
    side: str | None
    paths: tuple[Path, ...] = ()

    def parts(self) -> list[Part]:
        if not self.paths:
            return parts(self.spec.path, None)
        if self.spec.path == "-":
            return [Part("-", self.paths[0])]
        if len(self.paths) == 1 and not is_pattern(self.spec.path):
            return parts(self.spec.path, self.paths[0])
        return [Part(str(path), path, hint(Path(path.name))) for path in self.paths]

    def bytes(self) -> int:
        files = [f for path in self.paths for f in (path.rglob("*") if path.is_dir() else [path]) if f.is_file()]
        return sum(file.stat().st_size for file in files)


def is_pattern(name: str) -> bool:
    return any(sign in name for sign in "*?[") and not Path(name).exists()


def find(spec: SourceSpec, side: str | None, spooled: Path | None) -> Found:
    """Raises UsageError 110 for a path that is not there."""
    if spec.path == "-":
        assert spooled is not None
        return Found(spec, side, (spooled,))
    if is_pattern(spec.path):
        named = sorted(Path(name) for name in glob.glob(os.path.expanduser(spec.path), recursive=True))
        files = tuple(path for path in named if path.is_file() and readable(path))
        if not files:
            raise UsageError(
                110, f"no readable file fits '{spec.path}'", where="data.source", expected="a pattern that names files",
                cure="check the path",
            )  # fmt: skip
        return Found(spec, side, files)
    path = locate(spec.path)
    return Found(spec, side, (path,) if path is not None else ())


def frozen(folder: str) -> SourceSpec:
    """The test rows of an earlier data folder, as a source."""
    require_run(folder, "data")
    return SourceSpec(path=str(Path(folder) / "test"), format="prepared")


def locate(name: str) -> Path | None:
    """The existing path, else the local copy of a hub name, else None (the hub)."""
    path = Path(name).expanduser()
    if path.exists():
        return path
    root = os.environ.get("TUNELOOP_DATA")
    if root and not path.is_absolute():
        wanted = _plain(re.split(r"[/:]", name)[-1])
        for folder in sorted(Path(root).iterdir()) if Path(root).is_dir() else []:
            if wanted in (_plain(folder.name), _plain(folder.name.split(".")[0])):
                say(f"local copy of {name}: {folder}")
                return folder
    if _is_path(name):
        raise UsageError(
            110,
            f"no such file or folder '{name}'",
            where=str(path.absolute()),
            expected="a file, a folder, or a hub name like owner/name",
            cure="check the path",
        )
    return None


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _is_path(name: str) -> bool:
    """A hub name is `name`, `owner/name` or either with `:config`; what has a data suffix or more parts is a path."""
    suffix = kind(Path(name))
    hub = re.fullmatch(r"[\w][\w.-]*(/[\w][\w.-]*)?(:[\w.-]+)?", name)
    return hub is None or suffix in SUFFIXES or name.startswith((".", "/", "~"))


def parts(name: str, path: Path | None) -> list[Part]:
    """The files of a source in order of name; split hints only where a folder or the hub holds several."""
    if path is None:
        return _hub_parts(name)
    if path.is_file():
        return [Part(str(path), path)]
    if (path / "run.json").is_file() and read_json(path / "run.json").get("stage") == "generate":
        require_run(path, "generate")
        return [Part(str(path / "rows.jsonl"), path / "rows.jsonl")]
    if (path / "run.json").is_file():
        raise UsageError(
            135, "a folder that tuneloop wrote, not rows", where=str(path), cure="give the files it was made from"
        )
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and not _hidden(p, path)]
    found = [p for p in files if readable(p)]
    left = [p for p in files if p not in found]
    rows = [p for p in found if kind(p) not in TEXT_SUFFIXES]
    if rows:
        # A README beside the rows is not a row.
        left += [p for p in found if p not in rows]
        found = rows
    if left:
        say(f"not read in {path}: " + ", ".join(str(p.relative_to(path)) for p in left[:8]) + " ..." * (len(left) > 8))
    if not found:
        raise DataError(
            308, "no readable file in the folder", where=str(path), expected=", ".join(sorted(SUFFIXES)),
            cure="check the path",
        )  # fmt: skip
    return [Part(str(p), p, hint(p.relative_to(path))) for p in found]


def _hidden(path: Path, top: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(top).parts)


def hint(path: Path) -> str | None:
    """The split that a file's name or its folder gives: 'train.jsonl', 'test-00000-of-00001.parquet', 'dev/a.csv'."""
    for part in (path.name.split(".")[0], *reversed(path.parts[:-1])):
        words = re.split(r"[-_]", part.lower())
        for word in (words[0], words[-1]):
            if word in SPLIT_NAMES:
                return SPLIT_NAMES[word]
    return None


def _hub_parts(name: str) -> list[Part]:
    import datasets

    repository, _, config = name.partition(":")
    try:
        names = datasets.get_dataset_split_names(repository, config or None)
    except Exception as error:  # the hub client raises many kinds; all mean: this name cannot be had here
        raise _hub_error(name, error) from error
    return [Part(f"hub:{name}/{s}", None, SPLIT_NAMES.get(s.lower()), (repository, config or None, s)) for s in names]


def _hub_error(name: str, error: Exception) -> PrerequisiteError:
    return PrerequisiteError(
        280,
        f"'{name}' is no local path and cannot be fetched from the hub ({type(error).__name__})",
        where="data.source",
        expected="a file, a folder, a name below $TUNELOOP_DATA, or a hub name that can be reached",
        cure="check the name, go online, or set TUNELOOP_DATA to a folder of local copies",
    )


def hub_rows(part: Part) -> Iterator[Raw]:
    """The rows of a hub split; class numbers become their names."""
    import datasets

    assert part.hub is not None
    repository, config, split = part.hub
    try:
        table: Any = datasets.load_dataset(repository, config, split=split)
    except Exception as error:  # as above
        raise _hub_error(f"{repository}:{config or ''}", error) from error
    names = {key: f.names for key, f in table.features.items() if hasattr(f, "names")}
    for number, row in enumerate(table, start=1):
        for key, labels in names.items():
            if isinstance(row[key], int) and 0 <= row[key] < len(labels):
                row[key] = labels[row[key]]
        yield Raw(number, row=dict(row))
