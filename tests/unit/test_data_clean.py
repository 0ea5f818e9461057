"""Cleaning: damage is mended, words are left alone unless asked, and a second cleaning finds nothing to do."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import DataConfig
from tuneloop.config.data import CleanConfig
from tuneloop.data import prepare
from tuneloop.data.clean import fix, trim
from tuneloop.data.diff import changes, diff
from tuneloop.language import language
from tuneloop.records import read_examples, read_rejected
from tuneloop.store import read_json
from tuneloop.text import key

ALL = CleanConfig(quotes=True, widths=True, entities=True, html=True, personal_data=True)


def cleaned(text: str, config: CleanConfig | None = None) -> tuple[str, dict[str, int]]:
    counts: Counter[str] = Counter()
    return fix(text, counts, config or CleanConfig()), +counts


@pytest.mark.parametrize(
    ("text", "expected", "count"),
    [
        ("caf\u00c3\u00a9", "café", "encoding"),
        ("e\u0301", "é", "encoding"),
        ("a\r\nb\rc", "a\nb\nc", "line_ends"),
        ("a\0b\ufeffc\u200bd\x07", "abcd", "control_characters"),
        ("می\u200cخواهم", "می\u200cخواهم", ""),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧", ""),
        ("“quotes” ﬁne ＡＢ &amp; <b>x</b>", "“quotes” ﬁne ＡＢ &amp; <b>x</b>", ""),
        ("code:\n```\na\x1b[0m\n```\nout\x1b", "code:\n```\na\x1b[0m\n```\nout", "control_characters"),
    ],
)
def test_damage_is_mended_and_words_stay(text: str, expected: str, count: str) -> None:
    out, counts = cleaned(text)
    assert out == expected
    assert counts == ({count: 1} if count else {})


def test_what_changes_words_is_asked_for() -> None:
    text = "“it’s” ﬁne ＡＢ &amp;amp; <p>one</p><br/>two <thinking>x</thinking> vector<int>\n```\n<b>code</b>\n```"
    out, counts = cleaned(text, ALL)
    assert out == '"it\'s" fine AB & one\n\ntwo <thinking>x</thinking> vector<int>\n```\n<b>code</b>\n```'
    assert counts == {"encoding": 1, "entities": 1, "html": 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to jo.doe+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("call +49 (0)30 1234-5678 or (415) 555-2671", "call [PHONE] or [PHONE]"),
        ("card 4111 1111 1111 1111", "card [CARD]"),
        ("card 4111 1111 1111 1112", "card 4111 1111 1111 1112"),
        ("iban DE89 3704 0044 0532 0130 00", "iban [IBAN]"),
        ("iban DE88 3704 0044 0532 0130 00", "iban DE88 3704 0044 0532 0130 00"),
        ("host 192.168.10.254 and 2001:0db8:0000:0000:0000:ff00:0042:8329", "host [IP] and [IP]"),
        ("key sk-abcdefghijklmnopqrstuvwxyz123456 ok", "key [KEY] ok"),
        ("AKIAIOSFODNN7EXAMPLE", "[KEY]"),
        (
            "in 1999 there were 1,234,567 of 2.5 in 300.400.500.600",
            "in 1999 there were 1,234,567 of 2.5 in 300.400.500.600",
        ),
        ("version 1.2.3 and 3.14159265358979", "version 1.2.3 and 3.14159265358979"),
        ("2024-01-31 12:30:45 and 10 000 000", "2024-01-31 12:30:45 and 10 000 000"),
    ],
)
def test_personal_data_becomes_typed_placeholders(text: str, expected: str) -> None:
    assert cleaned(text, CleanConfig(personal_data=True))[0] == expected
    assert cleaned(text)[0] == text


SIGNS = "\r\n\0\ufeff<>&;`“é\u0301Ã©pbr/\u200b\x1f\x80Â €'\t"


@pytest.mark.parametrize("seed", range(4))
def test_cleaning_twice_is_cleaning_once(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        signs = [
            rng.choice(SIGNS) if rng.random() < 0.7 else chr(rng.randrange(0x3000)) for _ in range(rng.randint(0, 40))
        ]
        for config in (CleanConfig(), ALL):
            counts: Counter[str] = Counter()
            once = trim(fix("".join(signs), counts, config), counts)
            again: Counter[str] = Counter()
            assert trim(fix(once, again, config), again) == once
            assert not +again


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(tmp_path: Path, rows: list[dict[str, Any]], **more: Any) -> Path:
    path = lines(tmp_path / "r.jsonl", rows)
    return prepare(DataConfig(source=[path], valid_fraction=0, test_fraction=0, **more), tmp_path / "out")


PROSE = "The committee met on Monday and decided that the old bridge should be repaired before the winter comes again. "


def test_filters_say_what_they_measured(tmp_path: Path) -> None:
    looping = "the same words over and over again, " * 12
    rows = [
        {"question": "a fine question", "answer": "a fine answer"},
        {"question": "Say it again.", "answer": "say  it again."},
        {"question": "loop", "answer": looping},
        {"question": "bad", "answer": "I'm sorry, but I can't help with that."},
        {"question": "ai", "answer": "As an AI language model, I have no opinions."},
        {"question": "sorry", "answer": "I am sorry for your loss. Here is what you can do."},
        {"question": "list", "answer": "\n".join(f"{i}. {key(str(i))[:9]} {key(str(-i))[:5]}" for i in range(30))},
    ]
    wanted = {"repetition": True, "answer_equals_prompt": True, "refusals": True}
    out = run(tmp_path, rows, filter=wanted)
    found = {r.line: (r.reason, r.value) for r in read_rejected(out)}
    assert {line: reason for line, (reason, _) in found.items()} == {
        2: "answer_equals_prompt", 3: "repetition", 4: "refusal", 5: "refusal",
    }  # fmt: skip
    assert all(value for _, value in found.values())


def test_the_corpus_preset_is_for_plain_text(tmp_path: Path) -> None:
    good = PROSE * 2 + "\n" + "It was the best of plans, and the people of the town were glad to have it. " * 3
    texts = [good, "too short", "- bullet\n" * 60, good + " {", good + "\nlorem ipsum dolor", "1 2 3 " * 60]
    out = run(tmp_path, [{"text": t} for t in texts], filter={"corpus": True}, near_duplicates=False)
    rules = {r.line: r.field for r in read_rejected(out)}
    assert rules == {
        2: "words (Gopher)", 3: "bulleted lines (Gopher)", 4: "curly brackets (C4)", 5: "lorem ipsum (C4)",
        6: "mean word length (Gopher)",
    }  # fmt: skip


def test_languages_are_labelled_and_filtered(tmp_path: Path) -> None:
    german = "Der Ausschuss hat am Montag beschlossen, die alte Brücke vor dem Winter instand zu setzen."
    assert language(PROSE) == "en" and language(german) == "de" and language("short") is None
    rows = [{"question": PROSE, "answer": "fine"}, {"question": german, "answer": PROSE}]
    out = run(tmp_path, rows, filter={"languages": ["en"]})
    assert [(r.reason, r.value) for r in read_rejected(out)] == [("language", "de")]
    (row,) = read_examples(out, "train")
    assert row.meta["language"] == {"prompt": "en", "answer": None}
    assert read_json(out / "profile.json")["languages"] == {"en": 1, "too short to tell": 1}


def test_diff_shows_before_and_after(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert changes("a\0b", "ab") == ["- a[\\u0000]b", "+ a[]b"]
    path = lines(
        tmp_path / "r.jsonl", [{"question": "fine", "answer": "ok"}, {"question": "caf\u00c3\u00a9", "answer": "b"}]
    )
    assert diff(DataConfig(source=[path]), 5) == 1
    said = capsys.readouterr().out
    assert "r.jsonl:2" in said and "[Ã©]" in said and "[é]" in said and "encoding" in said
