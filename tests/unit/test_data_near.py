"""Near-duplicates, groups and splits: what goes, what only stands together, and what never moves."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.neighbours import minhash
from tuneloop.records import SPLITS, Example, read_examples, read_rejected
from tuneloop.store import read_json
from tuneloop.text import decisive, key

BASE = "Please describe in a few words how the old lighthouse at the northern harbour was built and who paid for it"


def lines(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def ask(question: str, answer: str = "By hand.", **more: Any) -> dict[str, Any]:
    return {"question": question, "answer": answer, **more}


def run(tmp_path: Path, rows: list[dict[str, Any]], name: str = "r", **settings: Any) -> Path:
    shares = {"valid_fraction": 0, "test_fraction": 0}
    path = lines(tmp_path / f"{name}.jsonl", rows)
    return prepare(DataConfig(source=[path], **{**shares, **settings}), tmp_path / f"out-{name}")


def kept(out: Path) -> dict[str, Example]:
    rows = [row for split in SPLITS for row in read_examples(out, split)]
    return {str((row.messages or [])[0]["content"]): row for row in rows}


def test_jaccard_is_that_of_the_sets_and_bands_find_what_is_near() -> None:
    rng = random.Random(3)
    texts = [" ".join(key(str(rng.randrange(400)))[:6] for _ in range(rng.randint(4, 40))) for _ in range(300)]
    near = [" ".join([*text.split()[:-1], "changed"]) for text in texts]
    values, offsets = minhash.shingles([*texts, *near, "", "ab"])
    sets = [set(values[offsets[i] : offsets[i + 1]].tolist()) for i in range(len(offsets) - 1)]
    grams = {text: {text[i : i + 5] for i in range(len(text) - 4)} for text in texts}
    assert [len(sets[i]) for i in range(300)] == [len(grams[text]) for text in texts]
    assert len(sets[-1]) == len(sets[-2]) == 1
    one, two = np.arange(300), np.arange(300) + 300
    found = minhash.jaccard(one, two, lambda i: values[offsets[i] : offsets[i + 1]])
    true = [len(sets[i] & sets[j]) / len(sets[i] | sets[j]) for i, j in zip(one, two, strict=True)]
    assert np.allclose(found, true)
    bands = minhash.bands(values, offsets)
    same = (bands[:300] == bands[300:600]).any(axis=1)
    assert same[found >= 0.8].all() and (found >= 0.8).sum() > 100
    unrelated = (bands[:299] == bands[1:300]).any(axis=1)
    assert unrelated.mean() < 0.05


def test_candidates_meet_their_first_and_last_predecessors_only() -> None:
    keys = np.array([7] * 50 + [1, 2, 7])
    one, two = minhash.candidates(keys)
    assert (one < two).all() and (keys[one] == keys[two]).all()
    mates = sorted(one[two == 40].tolist())
    assert mates == [0, 1, 2, 3, 36, 37, 38, 39]
    # What the first forty meet is the same when the rest is not there.
    few = minhash.candidates(keys[:40])
    assert set(zip(*few, strict=True)) == {(a, b) for a, b in zip(one, two, strict=True) if b < 40}


@pytest.mark.parametrize(
    ("other", "goes"),
    [
        (ask(BASE + "."), True),
        (ask(BASE.replace("few", "FEW")), True),
        (ask(BASE.replace("Please describe", "Describe")), True),
        (ask(BASE, "By machine."), False),
        (ask(BASE + " in 1901"), False),
        (ask(BASE.replace("was built", "was not built")), False),
        (ask(BASE.replace("a few", "two")), False),
        (ask("Who was the first keeper of the lighthouse, and for how long did she stay there?"), False),
    ],
)
def test_only_rows_that_ask_and_answer_the_same_go(tmp_path: Path, other: dict[str, Any], goes: bool) -> None:
    out = run(tmp_path, [ask(BASE), other])
    rows = kept(out)
    assert len(rows) == (1 if goes or other["question"] == BASE else 2)
    if goes:
        (gone,) = read_rejected(out)
        assert gone.reason == "near_duplicate" and gone.line == 2
        assert gone.value.startswith(rows[BASE].id) and "similarity 0." in gone.value + " similarity 0."
    else:
        assert read_rejected(out) == []


def test_near_prompts_with_other_answers_stand_together(tmp_path: Path) -> None:
    rows = [ask(BASE + f" in 19{i:02d}", f"answer {i}") for i in range(10)]
    far = [ask(f"What is {key(str(i))}?", "x") for i in range(200)]
    found = kept(run(tmp_path, [*rows, *far]))
    assert len({found[row["question"]].group for row in rows}) == 1
    assert len({row.group for row in found.values()}) == 201


def test_labels_and_feedback_are_not_mixed(tmp_path: Path) -> None:
    rows = [{"text": BASE, "label": "a"}, {"text": BASE + ".", "label": "b"}, {"text": BASE + "!", "label": "a"}]
    out = run(tmp_path, rows)
    assert [(r.reason, r.line) for r in read_rejected(out)] == [("near_duplicate", 3)]
    turns = [{"role": "user", "content": BASE}, {"role": "assistant", "content": "x"}]
    out = run(tmp_path, [{"messages": turns, "label": True}, {"messages": turns, "label": False}], "feedback")
    assert read_rejected(out) == []


def test_a_row_goes_only_against_one_that_stays(tmp_path: Path) -> None:
    """A chain: each is near to the next, the ends are not near to one another."""
    words = BASE.split()
    chain = [" ".join([*(f"new{'abcdefgh'[j]}" for j in range(i)), *words[i:]]) for i in range(8)]
    out = run(tmp_path, [ask(text) for text in chain], near_threshold=0.75)
    gone = {r.line: r.value.split()[0] for r in read_rejected(out)}
    rows = kept(out)
    ids = {row.id: text for text, row in rows.items()}
    assert 0 < len(gone) < len(chain) - 1
    for line, other in gone.items():
        values, offsets = minhash.shingles([chain[line - 1].lower(), ids[other].lower()])
        sets = [values[offsets[i] : offsets[i + 1]] for i in (0, 1)]
        assert minhash.jaccard(np.array([0]), np.array([1]), lambda i, s=sets: s[i])[0] >= 0.75  # type: ignore[misc]


def test_the_best_of_a_cluster_stays_by_score_then_order(tmp_path: Path) -> None:
    made = {"kind": "chat", "parents": [], "generator": {"model": "m"}}

    def row(text: str, score: float) -> dict[str, Any]:
        turns = [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]
        return {**made, "messages": turns, "scores": {"judge": score}}

    out = run(tmp_path, [row(BASE, 0.2), row(BASE + ".", 0.9), row(BASE + "!", 0.5), row(BASE, 0.9)])
    assert list(kept(out)) == [BASE] or list(kept(out)) == [BASE + "."]
    assert {r.reason for r in read_rejected(out)} == {"duplicate", "near_duplicate"}
    assert next(iter(kept(out).values())).scores == {"judge": 0.9}
    one = run(tmp_path, [ask("q", "short"), ask("q", "long")], "one", one_answer_per_prompt=True)
    assert [(r.reason, r.line) for r in read_rejected(one)] == [("other_answer", 2)]


def test_a_template_is_named_and_regrouped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = "You are given the message of a customer of a bank. Say in one word what it is about. Message: "
    rows = [ask(f"{head}{key(str(i))[:9]}", str(i)) for i in range(400)]
    out = run(tmp_path, rows)
    found = kept(out)
    assert len(found) == 400 and len({row.group for row in found.values()}) > 300
    assert "share most of their words: regrouped at" in capsys.readouterr().err
    told = read_json(out / "profile.json")["large_groups"]
    assert told[0]["rows"] == 400 and told[0]["prompt"].startswith("You are given")


def test_splits_stay_when_rows_are_added_and_bridges_go(tmp_path: Path) -> None:
    """Pairs that are not near one another, and for each a row that is near to both."""
    middles = [f"{key(str(i))}{key(str(i + 1000))}{key(str(i + 2000))[:20]}" for i in range(40)]
    pairs = [(f"{middle} {key(middle)[:14]}", f"{key(middle)[14:28]} {middle}") for middle in middles]
    shares = {"valid_fraction": 0, "test_fraction": 0.5}
    old = [ask(text, "x") for pair in pairs for text in pair]
    before = kept(run(tmp_path, old, "old", **shares))
    out = run(tmp_path, [*old, *(ask(middle, "y") for middle in middles)], "more", **shares)
    after = kept(out)
    assert all(after[q].split == row.split for q, row in before.items())
    apart = {m for m, (a, b) in zip(middles, pairs, strict=True) if before[a].split != before[b].split}
    assert 5 < len(apart) < 35
    gone = read_rejected(out)
    assert {r.reason for r in gone} == {"bridges_splits"}
    assert {middles[r.line - 81] for r in gone} == apart
    for middle, (one, two) in zip(middles, pairs, strict=True):
        if middle not in apart:
            assert after[middle].group == after[one].group == after[two].group == before[one].group


def test_appended_random_near_duplicates_never_move_old_rows(tmp_path: Path) -> None:
    rng = random.Random(5)
    vocabulary = [key(str(i))[:7] for i in range(300)]
    texts = [" ".join(rng.choices(vocabulary, k=12)) for _ in range(150)]
    for _ in range(250):
        words = rng.choice(texts).split()
        words[rng.randrange(len(words))] = rng.choice(vocabulary)
        texts.append(" ".join(words))
    rng.shuffle(texts)
    rows = [ask(text, f"a{i}") for i, text in enumerate(texts)]
    shares = {"valid_fraction": 0.2, "test_fraction": 0.2}
    small = {r.id: r for r in kept(run(tmp_path, rows[:250], "small", **shares)).values()}
    large = {r.id: r for r in kept(run(tmp_path, rows, "large", **shares)).values()}
    assert all(large[i].split == row.split and large[i].group == row.group for i, row in small.items() if i in large)
    assert set(small) <= set(large)


def test_a_frozen_test_split_takes_no_rows_and_loses_none(tmp_path: Path) -> None:
    shares = {"valid_fraction": 0.1, "test_fraction": 0.3}
    first = [ask(f"What is {key(str(i))}?", str(i)) for i in range(100)]
    old = run(tmp_path, first, "first", **shares)
    test = read_examples(old, "test")
    more = [ask(f"What is {key(str(i))}?", str(i)) for i in range(50, 300)]
    near = ask(str((test[0].messages or [])[0]["content"]) + "!", "leak")
    out = run(tmp_path, [*more, near], "second", frozen=str(old), **shares)
    now = read_examples(out, "test")
    assert [row.id for row in now] == [row.id for row in test]
    assert {r.reason for r in read_rejected(out)} == {"in_test"}
    assert not {row.group for row in now} & {row.group for row in read_examples(out, "train")}
    valid = {row.id for row in read_examples(old, "valid")}
    kept_ids = {row.id: row.split for split in SPLITS for row in read_examples(out, split)}
    assert all(kept_ids[i] == "valid" for i in valid if i in kept_ids)


def test_decisive_words_are_read_from_any_text() -> None:
    assert decisive("it isn't 3,5 or two").split() == ["3,5", "two", "n't"]
    assert decisive("nothing here").split() == ["nothing"]
    assert decisive("a plain sentence") == ""
