"""Each detector on rows in which its cause was planted, and on rows in which it was not."""

from __future__ import annotations

import csv
import json
import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.test_analyze import option_row, write_scores

from tuneloop.analyze import analyze, calibration, freetext, labels, layout, repeats
from tuneloop.analyze.coverage import holds
from tuneloop.analyze.review import apply, export
from tuneloop.analyze.training import Shown
from tuneloop.config import AnalyzeConfig, DataConfig
from tuneloop.data import prepare
from tuneloop.errors import DataError, UsageError
from tuneloop.records import read_examples
from tuneloop.store import read_json, read_jsonl, read_table

NAMES = [a + b for a in ("Ma", "Lo", "Ti", "Ra", "Be", "Sa") for b in ("ra", "len", "mo", "vin", "tas", "dor", "nel")]
THINGS = ["barley", "cheese", "honey", "plums", "lentils", "herring", "onions", "walnuts"]


def shown(prompt: str, answer: str, *, line: int = 0, label: str | None = None, loss: float = math.nan) -> Shown:
    return Shown(f"id{line}", f"rows.jsonl:{line}", line, prompt, answer, label, loss, loss, loss)


def asked(name: str, what: str = "eat") -> str:
    return f"Question: What does {name} {what}?\nAnswer:"


def test_contradictions_are_the_rows_with_one_question_and_two_answers() -> None:
    rows = [shown(asked(n), THINGS[i % 8], line=i) for i, n in enumerate(NAMES)]
    assert repeats.contradictions(rows) == []
    rows.append(shown("question: what does  Lomo eat?\nAnswer:", "nothing", line=99))
    assert [rows[i].line for i in repeats.contradictions(rows)] == [NAMES.index("Lomo"), 99]


def test_copies_have_filler_words_and_namesakes_are_no_copies() -> None:
    rows = [shown(asked(n), "barley", line=i) for i, n in enumerate(NAMES)]
    assert repeats.copies(rows) == []
    rows.append(shown("Question: Well, what does Mara eat?\nAnswer:", "barley", line=50))
    rows.append(shown("Question: Please: what does Mara eat?\nAnswer:", "barley", line=51))
    rows.append(shown("Question: Tell me: what does Mara eat?\nAnswer:", "cheese", line=52))
    assert [sorted(rows[i].line for i in group) for group in repeats.copies(rows)] == [[0, 50, 51]]


def test_a_foreign_frame_is_found_with_its_rows() -> None:
    prompts = {"quiz": [asked(n, "wear") for n in NAMES], "other": [f"{n} walks home to" for n in NAMES]}
    own = [shown(asked(n), "barley", line=i) for i, n in enumerate(NAMES)]
    assert layout.foreign(own, prompts) == {}
    odd = [shown(f"Asked: What does {n} wear?\nSaid:", "red", line=100 + i) for i, n in enumerate(NAMES[:20])]
    found = layout.foreign(own + odd, prompts)
    assert {task: len(rows) for task, rows in found.items()} == {"quiz": 20}
    assert all((own + odd)[i].line >= 100 for i in found["quiz"])
    options = [shown(f"What does {n} wear?\nA. red\nB. blue\nLetter:", "A", line=200 + i) for i, n in enumerate(NAMES)]
    assert layout.foreign(own + options, prompts) == {}  # another kind of task, not another layout


TOPICS = {
    "card": "card lost stolen atm pin",
    "loan": "loan credit mortgage debt interest",
    "rate": "rate exchange currency euro dollar",
}


def flipped_rows() -> tuple[list[tuple[str, str]], list[str], set[int]]:
    """(text, label) of 300 rows of which 15 carry another label, the right labels, and which 15."""
    rng = random.Random(0)
    right = [sorted(TOPICS)[i % 3] for i in range(300)]
    texts = [" ".join(rng.sample(TOPICS[label].split(), 3)) + f" please help {i}" for i, label in enumerate(right)]
    flipped = set(rng.sample(range(300), 15))
    given = [("card" if label != "card" else "rate") if i in flipped else label for i, label in enumerate(right)]
    return list(zip(texts, given, strict=True)), right, flipped


def test_flipped_labels_are_named_by_their_neighbours() -> None:
    rows, right, flipped = flipped_rows()
    found = labels.by_neighbours([shown(t, given, line=i, label=given) for i, (t, given) in enumerate(rows)], 0)
    assert found is not None
    hit = set(found.places) & flipped
    assert len(hit) >= 13
    assert len(hit) >= 0.9 * len(found.places)
    assert all(found.says[i] == right[i] for i in hit)


KINDS = {"eat": THINGS, "wear": ["red", "blue", "green", "white", "black"], "keep": ["cats", "dogs", "goats", "hens"]}


def of_three_kinds(rng: np.random.Generator) -> list[Shown]:
    """Questions of three kinds, each with answers and two wordings of its own, and even losses."""
    pairs = [(what, name) for what in KINDS for name in NAMES * 2]
    asks = (lambda n, w: asked(n, w), lambda n, w: f"Question: Tell what {n} has to {w}.\nAnswer:")
    return [
        shown(asks[k % 2](f"{n}{k}", what), str(rng.choice(KINDS[what])), line=k, loss=float(rng.exponential(0.2)))
        for k, (what, n) in enumerate(pairs)
    ]


def test_a_kind_of_answer_whose_losses_stay_high_is_named_and_even_losses_are_not() -> None:
    rng = np.random.default_rng(1)
    rows = of_three_kinds(rng)
    assert labels.by_loss(rows, set()) is None
    flipped = {row.line for row in rows if " eat" in row.prompt and rng.random() < 0.5}
    for row in rows:
        if row.line in flipped:
            row.later_loss = row.last_loss = 3.0
    found = labels.by_loss(rows, set())
    assert found is not None
    assert found.of == ["eat"]
    assert found.checked == 2 * len(NAMES)
    assert flipped <= {rows[i].line for i in found.places}
    assert len(found.places) <= 1.25 * len(flipped)  # how many there are is an estimate
    # Answers that all kinds share ('yes') leave nothing to compare with.
    for row in rows:
        row.answer = "yes"
    assert labels.by_loss(rows, set()) is None


def test_a_layout_is_read_off_its_prompts_and_carried_over() -> None:
    old = [f"Asked: What does {n} {w}?\nSaid:" for n in NAMES for w in KINDS]
    new = [f"A traveller asks: Does {n} {w}?\n\nThe answer is" for n in NAMES for w in KINDS]
    assert layout.pattern(old) == "Asked: {}\nSaid:"
    assert layout.pattern(new) == "A traveller asks: {}\n\nThe answer is"
    assert layout.pattern([f"{n} {w}s" for n in NAMES for w in KINDS]) == "{}"
    moved = layout.relaid(old[0], layout.pattern(old), layout.pattern(new))
    assert moved == f"A traveller asks: What does {NAMES[0]} eat?\n\nThe answer is"
    assert layout.relaid("Where is it?", "Asked: {}\nSaid:", "{}") == "Where is it?"


def test_a_lettered_option_is_answered_by_its_letter() -> None:
    prompts = [f"{n}?\nA. red\nB. blue\nAnswer:" for n in NAMES]
    train = [shown(p, "AB"[i % 2], line=i) for i, p in enumerate(prompts)]
    rows = [{"options": ["A. red", "B. blue"], "gold": i % 2} for i in range(len(prompts))]
    assert layout.answer_gaps(train, rows, prompts) == []
    whole = [{"options": ["red hats and coats.", "blue ones."], "gold": i % 2} for i in range(len(prompts))]
    traits = [trait for trait, _, _ in layout.answer_gaps(train, whole, prompts)]
    assert "ends with a full stop" in traits and "is one letter" in traits


def test_a_few_words_inside_a_longer_question_are_no_leak() -> None:
    from tuneloop.analyze.causes import Tagged

    asked_rows = [Tagged("quiz", {"row": "0", "question": "What is the fee?"}, None, [])]
    spare = [shown(f"{n} asks for {t}", "x", line=9) for n in NAMES[:5] for t in THINGS]
    whole = shown("Question: What is the fee?\nAnswer:", "x", line=1)
    inside = shown("I ask because of my card: what is the fee when I pay abroad with it?", "x", line=2)
    assert [i for _, i in repeats.leaks([*spare, whole], asked_rows)] == [len(spare)]
    assert repeats.leaks([*spare, inside], asked_rows) == []


def test_free_text_causes() -> None:
    assert freetext.tags("", "4", room=True) == ["empty answer"]
    assert "repetition loop" in freetext.tags("so it is so it is so it is", "4", room=False)
    assert "ran to the token limit" in freetext.tags("so it is", "4", room=False)
    assert "goes on with a new question" in freetext.tags("four\nQ: next?", "4", room=True)
    assert "refusal" in freetext.tags("I am sorry, I cannot help with that.", "4", room=True)
    assert freetext.tags("It is 4 of course", "4", room=True) == ["answer present, not extracted"]
    assert freetext.tags("many", "4", room=True) == ["wrong format"]
    assert "repeats a false reference" in freetext.tags("It is red.", "blue", room=True, false=["red"])
    assert "language switch" in freetext.tags("Привет, как дела", "hello how are you", room=True)
    assert freetext.tags("five apples", "four apples", room=True) == []


def test_calibration_of_a_known_model() -> None:
    rng = np.random.default_rng(2)
    confidence = rng.uniform(0.5, 1.0, 20_000)
    right = (rng.random(20_000) < confidence - 0.2).astype(float)
    assert calibration.ece(confidence, right) == pytest.approx(0.2, abs=0.01)
    assert calibration.ece_mass(confidence, right) == pytest.approx(0.2, abs=0.01)
    honest = (rng.random(20_000) < confidence).astype(float)
    assert calibration.ece(confidence, honest) < 0.02


def test_temperature_mends_scores_that_were_doubled(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = []
    for i in range(800):
        true = rng.normal(0, 1.5, 4)
        p = np.exp(true) / np.exp(true).sum()
        rows.append(option_row("quiz", str(i), gold=int(rng.choice(4, p=p)), logprobs=(2 * true).tolist()))
    out = analyze(AnalyzeConfig(), write_scores(tmp_path / "tune", rows), tmp_path / "a")
    entry = read_json(out / "findings.json")["calibration"][0]
    assert entry["temperature"]["value"] == pytest.approx(2.0, rel=0.2)
    assert entry["temperature"]["ece_after"] < entry["temperature"]["ece_before"]
    assert entry["gap"] > 0.05
    assert entry["ece_low"] <= entry["ece"] <= entry["ece_high"]
    assert entry["selective"]["50%"] > entry["accuracy"]


def labelled_data(folder: Path, rows: list[tuple[str, str]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "rows.jsonl"
    source.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))
    return prepare(plain(source), folder / "data")


def plain(source: Path) -> DataConfig:
    off = {"test_fraction": 0, "valid_fraction": 0, "near_duplicates": False}
    return DataConfig.model_validate({"source": [str(source)], **off})


@pytest.fixture
def starved(tmp_path: Path) -> tuple[Path, Path]:
    """Training rows in which intent 9 hardly stands, and scores that are wrong on it."""
    rng = random.Random(4)
    pairs = [(k, i) for k in range(10) for i in range(40 if k < 9 else 2)]
    train = [(f"{NAMES[k]} thing {i} {rng.choice(THINGS)}", f"intent {k}") for k, i in pairs]
    options = [f"intent {k}" for k in range(10)]
    rows = []
    for i in range(400):
        k = i % 10
        pred = k if rng.random() < (0.1 if k == 9 else 0.95) else (k + 1) % 10
        logprobs = [0.0 if j == pred else -2.0 - j / 10 for j in range(10)]
        more = {"options": options, "text_gold": options[k], "question": f"{NAMES[k]} thing {i}"}
        rows.append(option_row("test:accuracy", str(i), gold=k, logprobs=logprobs, **more))
    return labelled_data(tmp_path / "d", train), write_scores(tmp_path / "tune", rows, chance=0.1)


def test_starved_labels_are_a_finding_and_a_line_for_generate(starved: tuple[Path, Path], tmp_path: Path) -> None:
    data, scores = starved
    out = analyze(AnalyzeConfig(), scores, tmp_path / "a", data=data)
    found = read_json(out / "findings.json")["findings"][0]
    assert found["cause"] == "missing coverage"
    assert found["names"] == ["intent 9"]
    assert len(found["rows"]) == 40
    line = next(x for x in read_jsonl(out / "next_data.jsonl") if x["stage"] == "generate")
    assert line["names"] == ["intent 9"] and line["budget"] > 0 and line["rows"][0]["answer"] == "intent 9"
    near = [t for t in read_table(out / "tags.parquet").to_pylist() if t["wrong"] and t["nearest"]]
    known = {e.id for e in read_examples(data, "train")}
    assert near and all(set(t["nearest"]) <= known for t in near)


def test_a_gap_is_named_by_label_word_or_wording() -> None:
    row = {"question": "Where does Mara wish to live?", "text_gold": "Alden"}
    assert holds(["wish"], row) and holds(["Alden"], row) and holds(["where does … wish to live"], row)
    assert not holds(["where did … wish to live", "dreams", "mara live"], row)


def test_leaks_cuts_lengths_and_wrong_keys_are_told_apart(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows: list[dict[str, Any]] = []
    for i in range(400):
        gold, options = i % 4, [f"{THINGS[(i + j) % 8]}" for j in range(4)]
        right = rng.random() < 0.9
        pred = gold if right else (gold + 1) % 4
        sure = [-0.05 if j == pred else -4.0 - 0.1 * j for j in range(4)]
        logprobs = sure if right else [-0.7 if j in (pred, gold) else -4.0 for j in range(4)]
        more: dict[str, Any] = {"correct_norm": float(right)}
        if 100 <= i < 140:  # the key names another option
            gold = (gold + 2) % 4
            more = {"correct_norm": 0.0}
        if 200 <= i < 240:  # long right answers lose
            options[gold] += " and that is the whole of it"
            logprobs = [-9.0 if j == gold else -1.0 - 0.1 * j for j in range(4)]
            more = {"correct_norm": 1.0}
        if 300 <= i < 320:
            more = {"truncated": True, "correct_norm": float(right)}
        rows.append(option_row("quiz", f"{i:05d}", gold=gold, logprobs=logprobs, options=options,
                               question=f"What does {NAMES[i % 42]} number {i} eat?", **more))  # fmt: skip
    train = [(f"What does {NAMES[i % 42]} number {i} eat?", "leaked") for i in range(0, 60, 2)]
    train += [(f"Who is {NAMES[i % 42]} of street {i}?", "clean") for i in range(200)]
    data = labelled_data(tmp_path / "d", train)
    out = analyze(AnalyzeConfig(), write_scores(tmp_path / "tune", rows), tmp_path / "a", data=data)
    found = {f["cause"]: set(f["rows"]) for f in read_json(out / "findings.json")["findings"]}
    assert found["leaked test rows"] == {f"{i:05d}" for i in range(0, 60, 2)}
    assert found["truncated prompts"] == {f"{i:05d}" for i in range(300, 320)}
    assert found["length-biased options"] == {f"{i:05d}" for i in range(200, 240)}
    keys = {f"{i:05d}" for i in range(100, 140)}
    assert len(found["wrong gold"] & keys) >= 0.9 * len(found["wrong gold"]) and len(found["wrong gold"] & keys) >= 25
    assert "flipped labels" not in found and "missing coverage" not in found


@pytest.mark.parametrize(("elsewhere", "judges"), [(0.9, True), (0.3, False)])
def test_only_a_tune_that_knows_the_task_may_doubt_its_keys(elsewhere: float, judges: bool, tmp_path: Path) -> None:
    """The same sure and wrong answers: a doubt about the key where most rows are right, a gap where they are not."""
    rng = random.Random(8)
    rows: list[dict[str, Any]] = []
    for i in range(400):
        sure, gold = i % 2 == 0, rng.randrange(4)
        pred = gold if rng.random() < (0.87 if sure else elsewhere) else (gold + 1) % 4
        logprobs = [0.0 if j == pred else (-5.0 if sure else -0.5) - 0.1 * j for j in range(4)]
        words = " ".join(rng.sample(THINGS, 3))
        options = rng.sample(THINGS, 4)
        rows.append(option_row("quiz", f"{i:05d}", gold=gold, logprobs=logprobs, options=options, question=words))
    out = analyze(AnalyzeConfig(), write_scores(tmp_path / "tune", rows), tmp_path / "a")
    causes = {f["cause"] for f in read_json(out / "findings.json")["findings"]}
    assert ("wrong gold" in causes) == judges


def test_review_table_goes_out_and_comes_back(tmp_path: Path) -> None:
    data = labelled_data(tmp_path / "d", flipped_rows()[0])
    rows = [option_row("quiz", str(i), gold=0, logprobs=[0.0, -3.0]) for i in range(60)]
    scores = write_scores(tmp_path / "tune", rows)
    analysis = analyze(AnalyzeConfig(), scores, tmp_path / "a", data=data)
    table = tmp_path / "review.csv"
    with pytest.raises(UsageError, match="TL-190"):
        export(analysis, None, None, table)
    assert export(analysis, data, scores, table) >= 13
    lines = list(csv.DictReader(table.read_text().splitlines()))
    lines[0] |= {"corrected": lines[0]["suggested"]}
    lines[1] |= {"keep": "no"}
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, lines[0].keys())
        writer.writeheader()
        writer.writerows(lines)
    counts = apply(table, data, tmp_path / "reviewed.jsonl")
    assert counts == {"rows": 299, "corrected": 1, "dropped": 1, "test": 0}
    again = read_examples(prepare(plain(tmp_path / "reviewed.jsonl"), tmp_path / "again"), "train")
    mended = {e.messages[0]["content"]: e.label for e in again if e.messages}
    assert mended[lines[0]["question"]] == lines[0]["suggested"] and lines[1]["question"] not in mended
    table.write_text("id,of\n1,train\n")
    with pytest.raises(DataError, match="TL-380"):
        apply(table, data, tmp_path / "x.jsonl")
