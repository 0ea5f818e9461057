"""Bad input of the data stage: each a coded error with place and cure, and nothing half-written."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.errors import TuneloopError
from tuneloop.records import read_examples, read_rejected

GOOD = json.dumps({"question": "q", "answer": "a"})
ARRAY = '[\n{"question": "q", "answer": "a"},\n{"question": "r", "answer" "b"}\n]'


def fail(source: Path | str, out: Path, **settings: Any) -> TuneloopError:
    with pytest.raises(TuneloopError) as error:
        prepare(DataConfig(source=[str(source)], **settings), out)
    return error.value


@pytest.mark.parametrize(
    ("name", "content", "number", "place"),
    [
        ("empty.jsonl", b"", 302, "empty.jsonl"),
        ("blank.csv", b"\xef\xbb\xbf \n\n  \n", 302, "blank.csv"),
        ("none.json", b"[]", 302, "none.json"),
        ("wide.jsonl", GOOD.encode("utf-16"), 303, "wide.jsonl:1 (byte 0)"),
        ("wide.csv", "question,answer\n".encode("utf-16-le"), 303, "wide.csv:1"),
        ("latin.json", '[\n{"question": "caf\xe9", "answer": "a"}]'.encode("latin1"), 303, "latin.json:2 (byte 19)"),
        ("array.json", ARRAY.encode(), 304, "array.json:3 (column 28)"),
        ("cut.json", b'[{"question": "q", "answer": "a"}', 304, "cut.json:1"),
        ("tail.json", b'[{"question": "q", "answer": "a"}] x', 304, "tail.json:1"),
        ("twice.csv", b"question,answer,answer\nq,a,b\n", 305, "twice.csv:1"),
        ("not.parquet", b"PAR1 is not enough", 307, "not.parquet"),
        ("cut.jsonl.gz", gzip.compress(GOOD.encode() * 50)[:-12], 301, "cut.jsonl.gz"),
        ("fake.jsonl.gz", b"plain text", 301, "fake.jsonl.gz"),
        ("unknown.jsonl", b'{"strange": 1}\n{"strange": 2}\n', 309, "unknown.jsonl"),
        ("broken.jsonl", b"{broken\n", 309, "broken.jsonl"),
    ],
)
def test_a_bad_file_is_a_coded_error(tmp_path: Path, name: str, content: bytes, number: int, place: str) -> None:
    path, out = tmp_path / name, tmp_path / "out"
    path.write_bytes(content)
    error = fail(path, out)
    assert (error.number, error.exit_code) == (number, 4)
    assert place in error.where and (error.cure or error.expected)
    assert not out.exists()


def test_missing_things_are_usage_errors(tmp_path: Path) -> None:
    for source, number in [
        (tmp_path / "no.jsonl", 110),
        ("no_such_file.csv", 110),
        ("./no/such/folder", 110),
        (tmp_path / "picture.png", 130),
    ]:
        (tmp_path / "picture.png").write_bytes(b"x")
        error = fail(source, tmp_path / "out")
        assert (error.number, error.exit_code) == (number, 2)
        assert not (tmp_path / "out").exists()
    (tmp_path / "folder").mkdir()
    assert fail(tmp_path / "folder", tmp_path / "out").number == 308


def test_a_broken_line_costs_only_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.jsonl"
    bad = [b'{"question": "q2", "answer": ', b'{"question": "caf\xe9", "answer": "a"}', b"[1, 2]", b"null"]
    path.write_bytes(b"\n".join([GOOD.encode(), b"", *bad]) + b"\n")
    out = prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), tmp_path / "out")
    assert len(read_examples(out, "train")) == 1
    found = [(r.reason, r.line) for r in read_rejected(out)]
    assert found == [("broken_json", 3), ("wrong_encoding", 4), ("not_an_object", 5), ("not_an_object", 6)]
    offset = path.read_bytes().index(b"\xe9")
    assert f"byte 0xe9 at byte {offset}" in read_rejected(out)[1].value
    said = capsys.readouterr().err
    assert "TL-310" in said and "r.jsonl:3" in said and "TL-311" in said


def test_csv_rows_with_other_widths_are_rejected(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text('question,answer\nq,"two\nlines"\nq2,a,b\nq3\nq4,a\n', encoding="utf-8")
    out = prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), tmp_path / "out")
    assert [r.source["line"] for r in read_examples(out, "train")] == [2, 6]
    assert [(r.reason, r.line) for r in read_rejected(out)] == [("wrong_columns", 4), ("wrong_columns", 5)]


def test_reasons_are_ranked_when_nothing_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text('{"question": "q", "answer": ""}\n' * 3 + "{broken\n", encoding="utf-8")
    error = fail(path, tmp_path / "out")
    assert "no row could be kept of 4: 3 no_answer, 1 broken_json" in error.what


def test_a_mended_file_goes_into_the_same_folder(tmp_path: Path) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_text("{broken\n", encoding="utf-8")
    fail(path, out)
    out.mkdir()
    fail(path, out)
    assert [p.name for p in out.iterdir() if p.name != ".lock"] == []
    path.write_text(GOOD + "\n", encoding="utf-8")
    prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), out)
    assert (out / "manifest.json").is_file()


def test_a_run_folder_is_no_source_and_foreign_folders_are_kept(tmp_path: Path) -> None:
    path, out = tmp_path / "r.jsonl", tmp_path / "out"
    path.write_text(GOOD + "\n", encoding="utf-8")
    prepare(DataConfig(source=[str(path)], valid_fraction=0, test_fraction=0), out)
    assert fail(out, tmp_path / "other").number == 135
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("mine", encoding="utf-8")
    assert fail(path, tmp_path / "full").number == 112
    assert (tmp_path / "full" / "thesis.txt").read_text(encoding="utf-8") == "mine"


def test_all_rows_in_the_test_split_leave_nothing_to_train_on(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(GOOD + "\n", encoding="utf-8")
    error = fail(path, tmp_path / "out", test=[str(path)])
    assert error.number == 309 and "no training rows" in error.what
