"""What rows are made from: seeds with their ids, passages of documents, the lines that an analysis wrote for us."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from tuneloop.config.generate import GenerateConfig
from tuneloop.errors import DataError, UsageError
from tuneloop.generate.candidate import Inputs, question_of
from tuneloop.generate.methods.weak import NEW
from tuneloop.records import Example, read_examples
from tuneloop.store import read_json, read_jsonl, require_run, sha256_text

PASSAGE_WORDS = 300
TEXT_SUFFIXES = {".txt", ".md", ".rst"}
# Reads rows of any format into a folder as the data stage does; layer 7 passes it in.
Prepare = Callable[[list[str], Path], Path]


def load(config: GenerateConfig, wanted: str, prepare: Prepare | None, work: Path) -> Inputs:
    """The inputs that the method wants. `work` is where rows of raw files are prepared."""
    if wanted == "seeds":
        return Inputs(seeds=_seeds(config.seeds, prepare, work))
    if wanted == "documents":
        return Inputs(documents=_passages(config.documents))
    if wanted == "weak":
        return Inputs(weak=_weak(config.weak, config.per_input))
    return Inputs(seeds=_seeds(config.seeds, prepare, work) if config.seeds else [])


def _seeds(names: list[str], prepare: Prepare | None, work: Path) -> list[Example]:
    """Rows of data folders keep their split (only `train` is read); rows of files have none yet."""
    if not names:
        raise UsageError(
            166, "this method needs seeds", where="generate.seeds", expected="data folders, or files of rows",
            cure="set it",
        )  # fmt: skip
    found: list[Example] = []
    files = []
    for name in names:
        if (Path(name) / "run.json").is_file():
            stage = read_json(Path(name) / "run.json").get("stage")
            require_run(name, "generate" if stage == "generate" else "data")
            if stage == "data":
                found += read_examples(name, "train")
                continue
        files.append(name)
    if files:
        if prepare is None:
            raise UsageError(167, "seeds that are no data folder", where=files[0], cure="run `tuneloop data` first")
        raw = read_examples(prepare(files, work), "train")
        for row in raw:
            row.split = ""
        found += raw
    usable = [row for row in found if question_of(row).strip()]
    if not usable:
        raise DataError(395, "no seed has a prompt", where=", ".join(names), expected="rows with a question or text")
    return usable


def _passages(names: list[str]) -> list[tuple[str, str]]:
    """(id of the document, passage): paragraphs put together up to about PASSAGE_WORDS words."""
    if not names:
        raise UsageError(
            166, "this method needs documents", where="generate.documents", expected="text files or folders of them",
            cure="set it",
        )  # fmt: skip
    found = []
    for path in _files(names):
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise DataError(396, "not UTF-8", where=f"{path}: byte {error.start}", cure="save it as UTF-8") from error
        name = sha256_text(text)[:16]
        found += [(name, passage) for passage in split_passages(text)]
    if not found:
        raise DataError(397, "no text in the documents", where=", ".join(names), expected=", ".join(TEXT_SUFFIXES))
    return found


def _files(names: list[str]) -> list[Path]:
    files = []
    for name in names:
        path = Path(name)
        if not path.exists():
            raise UsageError(110, "no such file or folder", where=name, cure="check generate.documents")
        listed = sorted(path.rglob("*")) if path.is_dir() else [path]
        files += [p for p in listed if p.is_file() and (p.suffix.lower() in TEXT_SUFFIXES or p == path)]
    return files


def split_passages(text: str) -> list[str]:
    """Whole paragraphs, several while they are short; a heading stays with what follows."""
    passages: list[str] = []
    held: list[str] = []
    count = 0
    for paragraph in (part.strip() for part in text.split("\n\n")):
        words = len(paragraph.split())
        if held and count + words > PASSAGE_WORDS:
            passages.append("\n\n".join(held))
            held, count = [], 0
        if words:
            held.append(paragraph)
            count += words
    return [*passages, *(["\n\n".join(held)] if held else [])]


def _weak(name: str | None, per_input: int) -> list[dict[str, object]]:
    """The lines for this stage, each once for every NEW rows of its budget, in turns."""
    if name is None:
        raise UsageError(
            166, "this method needs the findings of an analysis", where="generate.weak",
            expected="the next_data.jsonl that `tuneloop analyze` wrote", cure="set it",
        )  # fmt: skip
    if not Path(name).is_file():
        raise UsageError(110, "no such file", where=f"{name} (generate.weak)", cure="check the path")
    lines = [line for line in read_jsonl(name) if isinstance(line, dict) and line.get("stage") == "generate"]
    usable = [line for line in lines if line.get("rows")]
    if not usable:
        raise DataError(
            398, f"{len(lines)} lines for `generate`, none with rows to show the teacher", where=name,
            expected='lines like {"stage": "generate", "slice": ..., "rows": [...], "budget": n}',
        )  # fmt: skip
    turns = [math.ceil(int(line.get("budget") or NEW) / NEW) * per_input for line in usable]
    return [line for turn in range(max(turns)) for line, count in zip(usable, turns, strict=True) if turn < count]
