"""Generated files through every reader: no traceback, and rows in = kept + rejected, each refusal with its reason.

    python benchmarks/fuzz_data.py [--inputs 20000] [--seed 0] [--seconds 600]

Each input is one file: rows of any shape in any container, then damaged (or not). A campaign, with its result dated in
`benchmarks/results`; `tests/unit/test_data_read.py` runs a few hundred of the same inputs. The last line is one object.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tuneloop import console
from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.errors import TuneloopError
from tuneloop.records import SPLITS, read_examples, read_rejected
from tuneloop.store import read_json

TEXTS = (
    "", " ", "a", "What is it?", "ne\u0301", "caf\u00c3\u00a9", "日本語",
    "\ud800", "\udce9", "\0", "a\0b",
    "\ufeff", "\u200b", "x" * 3000, "<b>", "[1, 2]", "{", "null", "NaN", "1e999",
    '"', "a,b", "a;b", "a\tb", "line\nbreak",
    "\r\n", "🎉\u200d", "```\ncode\n```", "Question: x\nAnswer:",
    "\n\nHuman: hi\n\nAssistant: ho", "True", "false", "0", "-1",
    "\u2028", "ﬁ", "\x1b[0m",
)  # fmt: skip
NAMES = (
    "messages", "conversations", "instruction", "input", "output", "prompt", "completion", "question", "answer", "text",
    "label", "chosen", "rejected", "choices", "answerKey", "query", "gold", "history", "system", "tools", "kto_tag",
    "role", "content", "kind", "parents", "generator", "id", "group", "split", "source", "",
    "Text", "TEXT", "weird\nname",
)  # fmt: skip
ROLES = ("user", "assistant", "system", "tool", "human", "gpt", "function_call", "observation", "wizard", None, 3)


def value(rng: random.Random, depth: int = 0) -> Any:
    draw = rng.random()
    if draw < 0.55 or depth > 3:
        return rng.choice(TEXTS)
    if draw < 0.7:
        return rng.choice([None, True, False, 0, 1, -7, 3.5, float("nan"), 1e308, 10**30])
    if draw < 0.85:
        return [value(rng, depth + 1) for _ in range(rng.randint(0, 3))]
    return {rng.choice(NAMES): value(rng, depth + 1) for _ in range(rng.randint(0, 3))}


def turn(rng: random.Random) -> Any:
    if rng.random() < 0.1:
        return value(rng)
    text = rng.choice(TEXTS) if rng.random() < 0.7 else value(rng)
    names = ("role", "content") if rng.random() < 0.6 else ("from", "value")
    return {names[0]: rng.choice(ROLES), names[1]: text, **({"weight": value(rng)} if rng.random() < 0.1 else {})}


def turns(rng: random.Random) -> Any:
    return [turn(rng) for _ in range(rng.randint(0, 4))] if rng.random() < 0.9 else value(rng)


def text(rng: random.Random) -> Any:
    return rng.choice(TEXTS) if rng.random() < 0.8 else value(rng)


SHAPES: tuple[Callable[[random.Random], Any], ...] = (
    lambda r: {"messages": turns(r), "label": value(r), "tools": value(r)},
    lambda r: {"messages": turns(r)},
    lambda r: {"conversations": turns(r), "system": text(r)},
    lambda r: {"instruction": text(r), "input": text(r), "output": text(r), "history": value(r)},
    lambda r: {"prompt": text(r), "completion": text(r), "label": value(r)},
    lambda r: {"prompt": turns(r), "completion": turns(r)},
    lambda r: {"question": text(r), "answer": text(r)},
    lambda r: {"text": text(r), "label": text(r)},
    lambda r: {"text": text(r)},
    lambda r: {"prompt": text(r), "chosen": text(r), "rejected": text(r)},
    lambda r: {"chosen": turns(r), "rejected": turns(r), "prompt": value(r)},
    lambda r: {"conversations": turns(r), "chosen": turn(r), "rejected": turn(r)},
    lambda r: {"question": text(r), "choices": value(r), "answer": value(r)},
    lambda r: {"question": text(r), "choices": {"text": value(r), "label": value(r)}, "answerKey": value(r)},
    lambda r: {"query": text(r), "choices": [text(r) for _ in range(4)], "gold": value(r)},
    lambda r: {"kind": text(r), "parents": value(r), "generator": value(r), "messages": turns(r), "scores": value(r)},
    lambda r: {
        "id": text(r),
        "group": text(r),
        "split": text(r),
        "kind": text(r),
        "source": text(r),
        "messages": text(r),
    },
    lambda r: {r.choice(NAMES): value(r) for _ in range(r.randint(0, 5))},
    value,
)


def rows(rng: random.Random) -> list[Any]:
    shape = rng.choice(SHAPES)
    return [(shape if rng.random() < 0.85 else rng.choice(SHAPES))(rng) for _ in range(rng.randint(0, 8))]


def _json(held: list[Any], rng: random.Random) -> bytes:
    style = rng.randrange(4)
    if style == 0:
        return json.dumps(held).encode()
    if style == 1:
        return json.dumps({"version": 1, "data": held}, indent=1).encode()
    if style == 2:
        return "\n".join(json.dumps(row, indent=2) for row in held).encode()
    return json.dumps(held, indent=2, ensure_ascii=False).encode("utf-8", "surrogatepass")


def _lines(held: list[Any], rng: random.Random) -> bytes:
    end = rng.choice(["\n", "\r\n", "\n\n"])
    return end.join(json.dumps(row, ensure_ascii=rng.random() < 0.5) for row in held).encode("utf-8", "surrogatepass")


def _csv(held: list[Any], rng: random.Random) -> bytes:
    out = io.StringIO()
    names = list({str(name): 0 for row in held if isinstance(row, dict) for name in row}) or ["text"]
    writer = csv.writer(out, delimiter=rng.choice(",;\t|"))
    writer.writerow(names)
    for row in held:
        cells = [row.get(name) if isinstance(row, dict) else row for name in names]
        writer.writerow([json.dumps(cell) if isinstance(cell, list | dict) else cell for cell in cells])
    text = out.getvalue()
    if rng.random() < 0.5:  # bytes that are no UTF-8, where a text holds what stands for them
        return "".join(c for c in text if not 0xD800 <= ord(c) < 0xDC80).encode("utf-8", "surrogateescape")
    return text.encode("utf-8", "replace")


def _arrow_table(held: list[Any], rng: random.Random) -> Any:
    import pyarrow as pa

    good = [row for row in held if isinstance(row, dict)]
    try:
        return pa.Table.from_pylist(good)
    except (pa.ArrowException, UnicodeEncodeError, OverflowError, TypeError):
        when = pa.array([rng.randrange(1 << 30) for _ in good], pa.timestamp("s"))
        return pa.table({"text": [repr(row) for row in good], "when": when})


def _parquet(held: list[Any], rng: random.Random) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = io.BytesIO()
    try:
        pq.write_table(_arrow_table(held, rng), sink)
    except pa.ArrowException:  # a struct without fields cannot be written
        return b"PAR1"
    return sink.getvalue()


def _arrow(held: list[Any], rng: random.Random) -> bytes:
    import pyarrow as pa

    sink = io.BytesIO()
    table = _arrow_table(held, rng)
    with (pa.ipc.new_file if rng.random() < 0.5 else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _text(held: list[Any], rng: random.Random) -> bytes:
    return rng.choice(["\n\n", "\n"]).join(str(row) for row in held).encode("utf-8", "surrogatepass")


KINDS: dict[str, Callable[[list[Any], random.Random], bytes]] = {
    "json": _json, "jsonl": _lines, "csv": _csv, "tsv": _csv, "parquet": _parquet, "arrow": _arrow, "txt": _text,
    "md": _text,
}  # fmt: skip


def damage(data: bytes, rng: random.Random) -> bytes:
    """Three inputs in four stay whole."""
    kind = rng.randrange(12)
    at = rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:at]
    if kind == 1:
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randint(1, 4))) + data[at:]
    return b"\xef\xbb\xbf" + data if kind == 2 else data


def write(folder: Path, rng: random.Random) -> Path:
    """One input file."""
    kind = rng.choice(list(KINDS))
    data = damage(KINDS[kind](rows(rng), rng), rng)
    pack = "" if kind in ("parquet", "arrow") else rng.choice(["", "", "", ".gz", ".zst"])
    if pack == ".gz":
        data = damage(gzip.compress(data, 1), rng)
    elif pack == ".zst":
        import pyarrow as pa

        data = damage(pa.compress(data, codec="zstd", asbytes=True), rng)
    path = folder / f"rows.{kind}{pack}"
    path.write_bytes(data)
    return path


def settings(rng: random.Random) -> dict[str, Any]:
    out: dict[str, Any] = {
        "valid_fraction": rng.choice([0, 0.2]),
        "test_fraction": rng.choice([0, 0.3]),
        "executor": "inline",
    }
    if rng.random() < 0.1:
        out["format"] = rng.choice(["document", "alpaca", "messages", "text", "question_answer"])
    if rng.random() < 0.2:
        out["clean"] = dict.fromkeys(("quotes", "widths", "entities", "html", "personal_data"), True)
    if rng.random() < 0.2:
        out["filter"] = dict.fromkeys(("corpus", "repetition", "answer_equals_prompt", "refusals"), True)
    return out


def check(path: Path, out: Path, given: dict[str, Any]) -> str:
    """'kept', or the code of the error that told the user; AssertionError where the promise is broken."""
    told: TuneloopError | None = None
    try:
        prepare(DataConfig(source=[str(path)], **given), out)
    except TuneloopError as error:
        told = error
    if told is not None:
        assert told.exit_code in (2, 4), told
        assert told.where and (told.cure or told.expected), str(told)
        assert not out.exists()
        return told.code
    profile = read_json(out / "profile.json")
    kept = [row for split in SPLITS for row in read_examples(out, split)]
    rejected = read_rejected(out)
    assert profile["rows_in"] == profile["kept"] + profile["rejected"] == len(kept) + len(rejected), profile
    assert all(row.reason and row.cure and row.line for row in rejected)
    assert all(row.id and row.group and row.source["line"] for row in kept)
    return "kept"


def run(inputs: int, seed: int, seconds: float, work: Path) -> dict[str, Any]:
    console.set_mode(quiet=True)
    found: Counter[str] = Counter()
    failures: list[dict[str, str]] = []
    started = time.monotonic()
    done = 0
    for number in range(inputs):
        if time.monotonic() - started > seconds:
            break
        rng = random.Random(f"{seed}/{number}")
        with tempfile.TemporaryDirectory(dir=work) as folder:
            path = write(Path(folder), rng)
            try:
                found[check(path, Path(folder) / "out", settings(rng))] += 1
            except Exception as error:  # what is looked for: anything that is not told as an error of the user's
                what = f"{type(error).__name__}: {error}"[:300]
                failures.append({"input": f"{seed}/{number}", "file": path.name, "error": what})
        done += 1
    return {"inputs": done, "failures": len(failures), "first": failures[:20], "outcomes": dict(found), "seed": seed,
            "seconds": round(time.monotonic() - started, 1)}  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9)
    given = parser.parse_args()
    import contextlib
    import os

    with open(os.devnull, "w") as quiet, contextlib.redirect_stderr(quiet):
        report = run(given.inputs, given.seed, given.seconds, Path(tempfile.gettempdir()))
    print(json.dumps(report))
