"""The data stage on files small enough to read: formats, splits, duplicates, profile."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.data.formats import detect
from tuneloop.errors import TuneloopError
from tuneloop.records import Example, Rejected, read_examples, read_rejected
from tuneloop.store import read_json
from tuneloop.text import key


def lines(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def run(source: Path | list[Path], **settings: Any) -> Path:
    """Prepares into a folder beside the source, all rows for training unless told otherwise."""
    sources = source if isinstance(source, list) else [source]
    settings = {"valid_fraction": 0, "test_fraction": 0, **settings}
    out = sources[0].parent / f"out-{sources[0].name}"
    return prepare(DataConfig(source=[str(s) for s in sources], **settings), out)


def kept(out: Path) -> list[Example]:
    profile = read_json(out / "profile.json")
    rows = [row for split in ("train", "valid", "test") for row in read_examples(out, split)]
    assert profile["rows_in"] == profile["kept"] + profile["rejected"]
    assert (profile["kept"], profile["rejected"]) == (len(rows), len(read_rejected(out)))
    return rows


def reasons(out: Path) -> list[tuple[str, int]]:
    return [(r.reason, r.line) for r in read_rejected(out)]


def turns(*pairs: str) -> list[dict[str, str]]:
    roles = ("user", "assistant") * len(pairs)
    return [{"role": role, "content": text} for role, text in zip(roles, pairs, strict=False)]


ARC = {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
SHAPES: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("messages", {"messages": turns("q", "a")}, {"messages": turns("q", "a"), "kind": "chat"}),
    (
        "sharegpt",
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        {"messages": turns("q", "a"), "kind": "chat"},
    ),
    ("alpaca", {"instruction": "q", "input": "", "output": "a"}, {"messages": turns("q", "a")}),
    (
        "seed_tasks",
        {"instruction": "q", "instances": [{"input": "x", "output": "a"}]},
        {"messages": turns("q\n\nx", "a")},
    ),
    ("alpaca", {"instruction": "q", "input": "x", "output": "a"}, {"messages": turns("q\n\nx", "a")}),
    ("prompt_completion", {"prompt": "q", "completion": " a"}, {"prompt": "q", "completion": " a"}),
    ("question_answer", {"question": "q", "answer": 42}, {"messages": turns("q", "42")}),
    ("text_label", {"text": "t", "label": 3}, {"label": "3", "kind": "classification"}),
    ("multiple_choice", ARC, {"prompt": "Question: q\nAnswer:", "completion": " b"}),
    ("multiple_choice", {"question": "q", "choices": ["a", "b"], "answer": 0, "subject": "s"}, {"completion": " a"}),
    ("ending", {"query": "He", "choices": ["runs", "sits"], "gold": 1}, {"prompt": "He", "completion": " sits"}),
    (
        "preference",
        {"prompt": "p", "chosen": "a", "rejected": "b"},
        {"kind": "preference", "prompt": "p", "chosen": "a", "rejected": "b"},
    ),
    (
        "preference",
        {"chosen": turns("q", "a"), "rejected": turns("q", "b")},
        {"messages": turns("q"), "chosen": turns("q", "a")[1:], "rejected": turns("q", "b")[1:]},
    ),
    (
        "preference",
        {"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
        {"messages": turns("q"), "chosen": turns("q", "a")[1:]},
    ),
    (
        "preference",
        {"prompt": "q", "chosen": turns("q", "a")[1:], "rejected": turns("q", "b")[1:]},
        {"messages": turns("q"), "rejected": turns("q", "b")[1:]},
    ),
    (
        "preference",
        {"instruction": "q", "input": "x", "chosen": "a", "rejected": "b"},
        {"messages": turns("q\n\nx"), "chosen": turns("q", "a")[1:]},
    ),
    ("messages", {"messages": turns("q", "a"), "label": False}, {"kind": "feedback", "desirable": False}),
    ("messages", {"messages": turns("q", "a"), "label": "billing"}, {"kind": "chat", "meta": {"label": "billing"}}),
    (
        "prompt_completion",
        {"prompt": "q", "completion": "a", "label": "True"},
        {"kind": "feedback", "desirable": True, "completion": "a"},
    ),
    ("messages", {"messages": turns("q", "a"), "tools": '[{"type": "function"}]'}, {"tools": [{"type": "function"}]}),
    (
        "sharegpt",
        {
            "conversations": [
                {"from": "human", "value": "q"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"x": 1}}'},
                {"from": "observation", "value": "2"},
                {"from": "gpt", "value": "a"},
            ]
        },
        {
            "messages": [
                {"role": "user", "content": "q"},
                {
                    "role": "assistant",
                    "content": "",
                    "tool_calls": [{"type": "function", "function": {"name": "f", "arguments": {"x": 1}}}],
                },
                {"role": "tool", "content": "2"},
                {"role": "assistant", "content": "a"},
            ]
        },
    ),
    ("text", {"text": "only text"}, {"text": "only text", "kind": "text"}),
]


@pytest.mark.parametrize(("name", "row", "expected"), SHAPES)
def test_every_format_is_found_by_itself(
    tmp_path: Path, name: str, row: dict[str, Any], expected: dict[str, Any]
) -> None:
    assert detect(row) == name
    (example,) = kept(run(lines(tmp_path / "rows.jsonl", [row])))
    assert {field: getattr(example, field) for field in expected} == expected
    assert (example.messages is not None) + (example.text is not None) + (example.prompt is not None) == 1
    assert example.source["line"] == 1


def test_alpaca_history_and_system(tmp_path: Path) -> None:
    row = {"instruction": "q2", "output": "a2", "history": [["q1", "a1"]], "system": "be kind"}
    (example,) = kept(run(lines(tmp_path / "r.jsonl", [row])))
    assert example.messages == [{"role": "system", "content": "be kind"}, *turns("q1", "a1", "q2", "a2")]


QA = [{"question": "q one", "answer": "a"}, {"question": "q two", "answer": "b"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.json", json.dumps(QA)),
        ("r.json", json.dumps(QA, indent=2)),
        ("r.json", json.dumps({"version": 1, "data": QA})),
        ("r.json", "\n".join(json.dumps(row) for row in QA)),
        ("r.json", "\n".join(json.dumps(row, indent=1) for row in QA)),
        ("r.jsonl", "\n\n".join(json.dumps(row) for row in QA) + "\n\n"),
        ("r.jsonl", "\ufeff" + "\r\n".join(json.dumps(row) for row in QA)),
        ("r.jsonl", json.dumps(QA)),
        ("r.csv", "question,answer\nq one,a\nq two,b\n"),
        ("r.csv", "\ufeffquestion;answer\r\nq one;a\r\n\r\nq two;b"),
        ("r.csv", '\n\nquestion,answer\n"q one",a\n"q two",b\n'),
        ("r.tsv", "question\tanswer\nq one\ta\nq two\tb\n"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_containers_give_the_same_rows(tmp_path: Path, name: str, content: str, packed: bool) -> None:
    path = tmp_path / (name + ".gz" * packed)
    data = content.encode("utf-8")
    path.write_bytes(gzip.compress(data) if packed else data)
    assert [row.messages for row in kept(run(path))] == [turns("q one", "a"), turns("q two", "b")]


def test_parquet_and_nested_columns(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"messages": turns("q", "a")}, {"messages": turns("r", "b")}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "r.parquet")
    assert [row.messages for row in kept(run(tmp_path / "r.parquet"))] == [turns("q", "a"), turns("r", "b")]
    with open(tmp_path / "r.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["messages"], [json.dumps(turns("q", "a"))]])
    assert kept(run(tmp_path / "r.csv"))[0].messages == turns("q", "a")


def test_plain_text_by_paragraph_and_whole(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("one\ntwo\n\n\nthree\n", encoding="utf-8")
    rows = kept(run(tmp_path / "t.txt"))
    assert [(row.text, row.source["line"]) for row in rows] == [("one\ntwo", 1), ("three", 5)]
    (tmp_path / "u.md").write_text("one\n\nthree\n", encoding="utf-8")
    assert [row.text for row in kept(run(tmp_path / "u.md", format="document"))] == ["one\n\nthree"]


def test_named_columns_and_format(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", [{"ask": "q", "say": "a", "extra": 1}])
    (row,) = kept(run(path, columns={"question": "ask", "answer": "say"}))
    assert row.messages == turns("q", "a") and row.meta == {"extra": 1}
    path = lines(tmp_path / "s.jsonl", [{"text": "t", "label": "l"}])
    assert kept(run(path, format="text"))[0].kind == "text"


@pytest.mark.parametrize(
    ("settings", "number"),
    [
        ({"columns": {"question": "asks", "answer": "say"}}, 134),
        ({"columns": {"nonsense": "ask"}}, 133),
        ({"format": "alpaca", "columns": {"question": "ask"}}, 133),
        ({"format": "alpacca"}, 132),
        ({"group": "grupo"}, 134),
    ],
)
def test_wrong_names_are_usage_errors(tmp_path: Path, settings: dict[str, Any], number: int) -> None:
    path = lines(tmp_path / "r.jsonl", [{"ask": "q", "say": "a", "group": 1, "question": "q", "answer": "a"}])
    with pytest.raises(TuneloopError) as error:
        run(path, **settings)
    assert (error.value.number, error.value.exit_code) == (number, 2)
    assert error.value.where and error.value.expected


def test_mixed_formats_are_read_and_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*QA, {"instruction": "i", "output": "o"}, {"strange": 1}, {"question": "no answer here"}]
    out = run(lines(tmp_path / "r.jsonl", rows))
    assert len(kept(out)) == 3
    assert reasons(out) == [("unknown_format", 4), ("no_answer", 5)]
    assert "mixes formats" in capsys.readouterr().err


def test_a_row_without_its_label_is_no_document(tmp_path: Path) -> None:
    out = run(lines(tmp_path / "r.jsonl", [{"text": "a", "label": "x"}, {"text": "b"}, {"text": "c", "label": None}]))
    assert len(kept(out)) == 1
    assert reasons(out) == [("no_answer", 2), ("no_answer", 3)]


BAD_TURNS = [
    ({"messages": []}, "bad_turns"),
    ({"messages": [{"role": "user", "content": "q"}]}, "no_answer"),
    ({"messages": [{"role": "assistant", "content": "a"}]}, "no_prompt"),
    ({"messages": [*turns("q", "a"), {"role": "user", "content": "more"}]}, "no_answer"),
    ({"messages": turns("q", "  ")}, "no_answer"),
    ({"messages": turns("", "a")}, "no_prompt"),
    ({"messages": [{"role": "wizard", "content": "q"}, *turns("q", "a")]}, "bad_turns"),
    ({"messages": [{"role": "user", "content": [{"type": "image"}]}, *turns("q", "a")]}, "wrong_type"),
    ({"messages": turns("q", "a"), "tools": [1]}, "wrong_type"),
    ({"question": "q", "answer": None}, "no_answer"),
    ({"question": "q", "answer": {"nested": None}}, "wrong_type"),
    ({"question": "q", "answer": float("nan")}, "no_answer"),
    ({"question": " ", "answer": "a"}, "no_prompt"),
    ({"question": "q", "choices": ["a", "b"], "answer": 2}, "no_answer"),
    ({"question": "q", "choices": ["a", None], "answer": 0}, "wrong_type"),
    ({"prompt": "p", "chosen": "a", "rejected": "a"}, "same_answers"),
    ({"chosen": "a", "rejected": "b"}, "no_prompt"),
    ({"prompt": "p", "chosen": "a", "rejected": ""}, "no_answer"),
    ({"prompt": turns("q"), "chosen": turns("q"), "rejected": turns("q", "b")}, "bad_turns"),
    ({"text": ""}, "no_text"),
]


@pytest.mark.parametrize(("row", "reason"), BAD_TURNS)
def test_rows_without_anything_to_learn_say_why(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    out = run(lines(tmp_path / "r.jsonl", [{"messages": turns("good", "row")}, row]))
    assert len(kept(out)) == 1
    (rejected,) = read_rejected(out)
    assert (rejected.reason, rejected.line) == (reason, 2)
    assert rejected.cure and rejected.field and rejected.raw


def test_duplicates_name_the_row_that_stays(tmp_path: Path) -> None:
    rows = [("What is A?", "x"), ("What  is A? ", "x"), ("what is a?", "y"), ("What is A?", "X")]
    out = run(lines(tmp_path / "r.jsonl", [{"question": q, "answer": a} for q, a in rows]))
    examples = kept(out)
    (rejected,) = read_rejected(out)
    assert (rejected.reason, rejected.line, rejected.value) == ("duplicate", 2, examples[0].id)
    assert len(examples) == 3 and len({e.group for e in examples}) == 1
    again = run(lines(tmp_path / "s.jsonl", [QA[0], QA[0]]), deduplicate=False)
    assert len(kept(again)) == 2


def many(n: int, **more: Any) -> list[dict[str, Any]]:
    return [{"question": f"question {key(str(i))[:12]}", "answer": f"{i}", **more} for i in range(n)]


def test_splits_are_shares_of_groups_and_stay_when_rows_are_added(tmp_path: Path) -> None:
    rows = [{"question": f"what is {key(str(i // 2))}?", "answer": str(i)} for i in range(1200)]
    shares = {"valid_fraction": 0.1, "test_fraction": 0.2, "seed": 7}
    small = kept(run(lines(tmp_path / "a.jsonl", rows[:800]), **shares))
    large = kept(run(lines(tmp_path / "b.jsonl", list(reversed(rows))), **shares))
    side = {row.id: row.split for row in large}
    assert all(side[row.id] == row.split for row in small)
    groups: dict[str, set[str]] = {}
    for row in large:
        groups.setdefault(row.group, set()).add(row.split)
    assert len(groups) == 600 and all(len(sides) == 1 for sides in groups.values())
    assert 0.15 < sum(row.split == "test" for row in large) / 1200 < 0.25
    assert 0.06 < sum(row.split == "valid" for row in large) / 1200 < 0.14
    other = kept(run(lines(tmp_path / "c.jsonl", rows), **{**shares, "seed": 8}))
    assert {row.id: row.split for row in other} != side


def test_group_column_joins_through_prompts(tmp_path: Path) -> None:
    rows = [
        {"question": "one", "answer": "a", "doc": "d1"},
        {"question": "two", "answer": "b", "doc": "d1"},
        {"question": "two", "answer": "c", "doc": "d2"},
        {"question": "three", "answer": "d", "doc": "d2"},
        {"question": "four", "answer": "e", "doc": None},
    ]
    examples = kept(run(lines(tmp_path / "r.jsonl", rows), group="doc"))
    assert len({e.group for e in examples[:4]}) == 1 and examples[4].group != examples[0].group


def test_folder_splits_and_leaks(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    lines(
        folder / "train.jsonl", [*many(40), {"question": "LEAK  me", "answer": "1"}, {"question": "v", "answer": "2"}]
    )
    lines(
        folder / "dev-00000-of-00001.jsonl", [{"question": "v", "answer": "1"}, {"question": "leak me", "answer": "3"}]
    )
    lines(folder / "test.jsonl", [{"question": "leak me", "answer": "2"}] * 2)
    (folder / "README.md").write_text("not a row", encoding="utf-8")
    out = run(folder, valid_fraction=0.5, test_fraction=0.4)
    sides = [row.split for row in kept(out)]
    assert (sides.count("train"), sides.count("valid"), sides.count("test")) == (40, 1, 2)
    assert sorted(r.reason for r in read_rejected(out)) == ["in_test", "in_test", "in_valid"]
    assert "duplicate" in read_examples(out, "test")[1].flags


def test_named_test_sources_stay_whole(tmp_path: Path) -> None:
    train = lines(tmp_path / "a.jsonl", many(50))
    test = lines(tmp_path / "b.jsonl", many(20))
    out = prepare(DataConfig(source=[str(train)], test=[str(test)], valid_fraction=0), tmp_path / "out")
    assert len(read_examples(out, "test")) == 20 and len(read_examples(out, "train")) == 30
    assert {r.reason for r in read_rejected(out)} == {"in_test"}
    assert not {e.group for e in read_examples(out, "train")} & {e.group for e in read_examples(out, "test")}


def test_cleaning_is_light_and_counted(tmp_path: Path) -> None:
    damaged = "caf\u00c3\u00a9 \u201cquoted\u201d &amp; \x07bell\r\nnext  "
    out = run(lines(tmp_path / "r.jsonl", [{"question": damaged, "answer": "\n    indented\n"}]))
    assert kept(out)[0].messages == turns("café “quoted” &amp; bell\nnext", "    indented")
    cleaned = read_json(out / "profile.json")["cleaned"]
    assert cleaned["encoding"] == cleaned["control_characters"] == cleaned["line_ends"] == cleaned["rows_changed"] == 1


def test_profile_counts_each_source(tmp_path: Path) -> None:
    one = lines(tmp_path / "a.jsonl", [{"text": "a", "label": "x"}, {"text": "b", "label": "y"}, {"text": "b"}])
    two = lines(tmp_path / "b.jsonl", [{"text": "a", "label": "x"}, {"text": "日本語", "label": "ラベル"}])
    profile = read_json(run([one, two]) / "profile.json")
    assert [(s["rows_in"], s["kept"], s["rejected"]) for s in profile["sources"]] == [(3, 2, 1), (2, 1, 1)]
    assert profile["labels"] == {"x": 1, "y": 1, "ラベル": 1}
    assert profile["reasons"] == {"no_answer": 1, "duplicate": 1}
    assert profile["characters"]["prompt"]["max"] == 3 and profile["examples"][0]["prompt"] == "a"


def test_limit_takes_the_first_rows_of_each_file(tmp_path: Path) -> None:
    assert len(kept(run(lines(tmp_path / "a.jsonl", many(30)), limit=7))) == 7


def test_the_same_run_is_skipped_and_another_refused(tmp_path: Path) -> None:
    path = lines(tmp_path / "a.jsonl", many(5))
    out = run(path)
    written = (out / "manifest.json").stat().st_mtime_ns
    assert run(path) == out and (out / "manifest.json").stat().st_mtime_ns == written
    with pytest.raises(TuneloopError) as error:
        run(path, seed=3)
    assert error.value.number == 113


@pytest.mark.parametrize("name", ["owner/My-Set", "owner/other:my_set", "my-set"])
def test_local_copy_is_announced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    lines(tmp_path / "copies" / "my_set" / "train.jsonl", many(5))
    monkeypatch.setenv("TUNELOOP_DATA", str(tmp_path / "copies"))
    monkeypatch.chdir(tmp_path)
    out = prepare(DataConfig(source=[name], valid_fraction=0, test_fraction=0), tmp_path / "out")
    assert len(read_examples(out, "train")) == 5
    assert f"local copy of {name}" in capsys.readouterr().err


def test_rejected_records_hold_valid_text(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("question,answer\ngood,row\ncaf\xe9,b\n".encode("latin1"))
    out = run(tmp_path / "r.csv")
    (rejected,) = read_rejected(out)
    assert isinstance(rejected, Rejected)
    assert (rejected.reason, rejected.line, rejected.raw) == ("wrong_encoding", 3, "caf\\xe9,b")
