"""What can be read and how it is named; a fixed sample of the campaign in `benchmarks/fuzz_data.py`."""

from __future__ import annotations

import gzip
import io
import json
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from benchmarks import fuzz_data

from tuneloop import console
from tuneloop.config import DataConfig
from tuneloop.config.load import load
from tuneloop.data import prepare
from tuneloop.errors import DataError, UsageError
from tuneloop.records import read_examples, read_rejected

ROWS = [{"question": "q one", "answer": "a"}, {"question": "q two", "answer": "b"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def asked(out: Path) -> list[str]:
    return [str((row.messages or [])[0]["content"]) for row in read_examples(out, "train")]


def run(source: Any, out: Path, **more: Any) -> Path:
    return prepare(DataConfig(source=source, **{"valid_fraction": 0, "test_fraction": 0, **more}), out)


def stream(rows: list[dict[str, Any]], make: Any) -> bytes:
    sink = io.BytesIO()
    table = pa.Table.from_pylist(rows)
    with make(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.jsonl.zst", pa.compress(LINES, codec="zstd", asbytes=True)),
        ("r.json.zst", pa.compress(json.dumps(ROWS).encode(), codec="zstd", asbytes=True)),
        ("r.csv.zst", pa.compress(b"question,answer\nq one,a\nq two,b\n", codec="zstd", asbytes=True)),
        ("r.arrow", stream(ROWS, pa.ipc.new_file)),
        ("r.arrow", stream(ROWS, pa.ipc.new_stream)),
        ("r.feather", stream(ROWS, pa.ipc.new_file)),
    ],
)
def test_more_containers(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert asked(run([str(tmp_path / name)], tmp_path / "out")) == ["q one", "q two"]


@pytest.mark.parametrize(
    ("name", "content", "number"),
    [
        ("cut.jsonl.zst", pa.compress(LINES * 99, codec="zstd", asbytes=True)[:40], 301),
        ("fake.jsonl.zst", b"plain text", 301),
        ("bad.arrow", b"ARROW1 and no more", 307),
        ("none.arrow", stream(ROWS, pa.ipc.new_file)[:-30], 307),
    ],
)
def test_broken_containers_are_named(tmp_path: Path, name: str, content: bytes, number: int) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as error:
        run([str(tmp_path / name)], tmp_path / "out")
    assert error.value.number == number and name in error.value.where and error.value.cure


def test_a_pattern_names_files_and_their_splits(tmp_path: Path) -> None:
    for name in ("train-a", "train-b", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"question": f"q of {name}", "answer": name}) + "\n")
    out = run([str(tmp_path / "*.jsonl")], tmp_path / "out", near_duplicates=False)
    assert sorted(asked(out)) == ["q of train-a", "q of train-b"] and len(read_examples(out, "test")) == 1
    with pytest.raises(UsageError) as error:
        run([str(tmp_path / "*.csv")], tmp_path / "none")
    assert error.value.number == 110


@pytest.mark.parametrize(
    "content", [LINES, json.dumps(ROWS).encode(), gzip.compress(LINES), stream(ROWS, pa.ipc.new_file)]
)
def test_standard_input_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    class Stdin:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Stdin())
    out = run(["-"], tmp_path / "out")
    assert asked(out) == ["q one", "q two"] and read_examples(out, "train")[0].source["uri"] == "-"


def test_each_row_is_read_by_the_format_that_its_columns_fit(tmp_path: Path) -> None:
    rows = [*ROWS, {"instruction": "do it", "input": "with this", "output": "done"}]
    (tmp_path / "r.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert asked(run([str(tmp_path / "r.jsonl")], tmp_path / "out"))[2] == "do it\n\nwith this"


def test_strict_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(LINES + b'{"question": "q", "answer": ""}\n{broken\n')
    with pytest.raises(DataError) as error:
        run([str(path)], tmp_path / "out", strict=True)
    assert error.value.number == 345 and f"{path}:3 (answer)" in error.value.where and "TL-316" in error.value.what
    assert not (tmp_path / "out").exists()


def test_half_a_surrogate_pair_costs_its_row_only(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(LINES + b'{"question": "\\ud800", "answer": "a"}\n')
    out = run([str(tmp_path / "r.jsonl")], tmp_path / "out")
    (gone,) = read_rejected(out)
    assert (gone.reason, gone.value, gone.line) == ("wrong_encoding", "U+D800", 3)


def test_dates_and_numbers_of_a_table_become_text_where_that_is_right(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    table = pa.table({"question": ["q"], "answer": [3.0], "when": pa.array([0], pa.timestamp("s"))})
    pq.write_table(table, tmp_path / "r.parquet")
    (row,) = read_examples(run([str(tmp_path / "r.parquet")], tmp_path / "out"), "train")
    assert (row.messages or [])[-1]["content"] == "3" and row.meta["when"].startswith("1970-01-01")


def test_keys_below_keys_can_be_set() -> None:
    loaded = load(None, ["data.columns.question=ask", "data.clean.html=true", "data.filter.languages=[en]"])
    assert loaded.config.data.columns == {"question": "ask"} and loaded.config.data.clean.html
    with pytest.raises(UsageError) as error:
        load(None, ["data.clean.htlm=true"])
    assert "did you mean 'html'" in error.value.what


def test_a_sample_of_the_fuzz_campaign(tmp_path: Path) -> None:
    try:
        found = fuzz_data.run(250, seed=7, seconds=120, work=tmp_path)
    finally:
        console.set_mode()
    assert found["inputs"] == 250 and not found["first"], found["first"]
    assert found["outcomes"]["kept"] > 50 and len(found["outcomes"]) >= 5


def test_numbers_of_too_many_digits_cost_one_line(tmp_path: Path) -> None:
    huge = "9" * 5000
    one = tmp_path / "a.jsonl"
    one.write_text(f'{{"question": "q", "answer": "a"}}\n{{"question": "q2", "answer": {huge}}}\n')
    out = prepare(DataConfig(source=[str(one)], valid_fraction=0, test_fraction=0), tmp_path / "out")
    assert [(r.line, r.reason) for r in read_rejected(out)] == [(2, "broken_json")]
    whole = tmp_path / "b.json"
    whole.write_text(f'[{{"question": "q", "answer": {huge}}}]')
    with pytest.raises(DataError) as error:
        prepare(DataConfig(source=[str(whole)]), tmp_path / "none")
    assert error.value.number == 304 and "digits" in str(error.value)


def test_names_that_are_no_text_stand_in_a_refusal_as_far_as_they_can(tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a"}] * 3 + [{"question": "q", "\ud800": "b", "x" * 3000: 1}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows))
    out = prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), tmp_path / "out")
    (refused,) = [row for row in read_rejected(out) if row.reason == "no_answer"]
    assert refused.line == 1 and len(refused.cure) <= 400


BROKEN_TURNS = [
    {"weight": "1"}, {"weight": [1]}, {"weight": {}}, {"weight": True}, {"tool_calls": "abc"}, {"tool_calls": [1]},
    {"tool_calls": {"name": "f"}}, {"tool_calls": 5},
]  # fmt: skip
BROKEN_OWN = [
    {"messages": "hi"}, {"messages": [1]}, {"messages": [{"role": "user"}]}, {"prompt": 5}, {"meta": "zz"},
    {"scores": {"a": "x"}}, {"parents": ["\ud800"]},
]  # fmt: skip
EMPTIED = [
    {"question": "who", "answer": "\u200b"}, {"text": "a", "label": "\u200b"}, {"text": "\ufeff"},
    {"prompt": "a", "completion": "\0"}, {"prompt": "p", "chosen": "b\u200b", "rejected": "b"},
]  # fmt: skip


@pytest.mark.parametrize("row", BROKEN_TURNS + BROKEN_OWN + EMPTIED, ids=repr)
def test_a_row_that_breaks_later_is_refused_here(row: dict[str, Any], tmp_path: Path) -> None:
    asked: list[Any] = [{"role": "user", "content": "who are you?"}, {"role": "assistant", "content": "me"}]
    if row in BROKEN_TURNS:
        good, bad = {"messages": asked}, {"messages": [asked[0], {**asked[1], **row}]}
    elif row in BROKEN_OWN:
        good = {"kind": "chat", "parents": [], "generator": {}, "messages": asked}
        bad = {**good, **row}
    else:
        good, bad = {name: value.strip("\0\u200b\ufeff") + name for name, value in row.items()}, row
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(good) + "\n" + json.dumps(bad) + "\n")
    out = prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), tmp_path / "out")
    assert len(read_examples(out, "train")) == 1
    assert [refused.line for refused in read_rejected(out)] == [2]


def test_marks_of_a_conversation_and_nests_of_any_depth(tmp_path: Path) -> None:
    pair = {"chosen": "\n\nHuman: a\0b\n\nAssistant: c", "rejected": "\n\nHuman: a\0b\n\nAssistant: d"}
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(pair) + "\n")
    (row,) = read_examples(
        prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), tmp_path / "a"), "train"
    )
    assert row.kind == "preference"
    nest = "[" * 900 + "]" * 900
    path = tmp_path / "deep.jsonl"
    path.write_text('{"question": "who?", "answer": "me"}\n{"question": "whom?", "answer": "you", "m": ' + nest + "}\n")
    out = prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), tmp_path / "b")
    assert [(r.line, r.reason) for r in read_rejected(out)] == [(2, "broken_json")]
