"""Tokens of a row, what happens to rows that are too long, how many rows of each source, and children of rows."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError
from tests.answering import Replies, serving

from tuneloop.config import DataConfig, ModelConfig
from tuneloop.data import prepare
from tuneloop.data.augment import typos
from tuneloop.data.paraphrase import fault
from tuneloop.errors import UsageError
from tuneloop.models import load_tokenizer
from tuneloop.prompts import apply_template, encode
from tuneloop.prompts.batch import best_fit, encode_batch
from tuneloop.records import SPLITS, Example, read_examples, read_rejected
from tuneloop.store import read_json
from tuneloop.text import key

WORLD = ModelConfig(name="world", template="plain")


def lines(path: Path, rows: list[Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def run(tmp_path: Path, rows: list[Any], name: str = "r", **settings: Any) -> Path:
    path = lines(tmp_path / f"{name}.jsonl", rows)
    shares = {"valid_fraction": 0, "test_fraction": 0}
    config = DataConfig(source=[path], **{**shares, **settings})
    return prepare(config, tmp_path / f"out-{name}", model=WORLD)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    loaded = load_tokenizer("world")
    apply_template(loaded, "plain")
    return loaded


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_a_batch_is_encoded_as_each_row_alone(tokenizer: Any) -> None:
    rows = [
        Example(messages=turns("q", "a")),
        Example(messages=turns(" padded ", "a\n\nb  ")),
        Example(messages=[{"role": "system", "content": "s"}, *turns("q", "a", "r", "b")]),
        Example(
            messages=[
                *turns("q", "a"),
                {"role": "user", "content": "r"},
                {"role": "assistant", "content": "b", "weight": 0},
            ]
        ),
        Example(prompt="p", completion=" c"),
        Example(text="only text é日本"),
        Example(messages=turns("", "a")),
        Example(prompt="", completion="x"),
    ]
    for name in ("plain",):
        apply_template(tokenizer, name)
        for example, found in zip(rows, encode_batch(rows, tokenizer), strict=True):
            alone = encode(example, tokenizer)
            assert not isinstance(found, Exception)
            assert (found.input_ids, found.trained, found.text) == (alone.input_ids, alone.trained, alone.text)
    refused = encode_batch([Example(messages=[{"role": 3, "content": "x"}])], tokenizer)
    assert isinstance(refused[0], Exception)


def test_packs_are_full_and_hold_every_row_once() -> None:
    lengths = [1 + (i * 37) % 90 for i in range(500)] + [300]
    packs = best_fit(lengths, 100)
    assert sorted(i for pack in packs for i in pack) == list(range(501))
    sizes = [sum(lengths[i] for i in pack) for pack in packs]
    assert max(size for pack, size in zip(packs, sizes, strict=True) if pack != [500]) <= 100
    assert len(packs) - 1 <= 1.03 * sum(lengths[:-1]) / 100 + 1


def test_tokens_are_those_that_training_sees(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"question": f"What is {key(str(i))}?", "answer": f"number {i}"} for i in range(30)]
    out = run(tmp_path, rows)
    found = read_json(out / "profile.json")["tokens"]
    encoded = [encode(row, tokenizer) for row in read_examples(out, "train")]
    lengths = [len(one.input_ids) for one in encoded]
    assert found["rows"] == 30 and found["example"]["max"] == max(lengths) and found["example"]["total"] == sum(lengths)
    assert found["trained_share"] == round(sum(sum(one.trained) for one in encoded) / sum(lengths), 4)
    assert found["vocabulary"]["used"] == len({t for one in encoded for t in one.input_ids})
    assert sum(found["histogram"]["counts"]) == 30
    with pytest.raises(UsageError) as error:
        prepare(DataConfig(source=[str(tmp_path / "r.jsonl")], max_length=50), tmp_path / "none")
    assert error.value.number == 138


def test_a_model_without_a_template_is_no_fault_of_the_rows(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", [{"question": "q", "answer": "a"}])
    with pytest.raises(UsageError) as error:
        prepare(DataConfig(source=[path]), tmp_path / "out", model=ModelConfig(name="world"))
    assert error.value.number == 121 and not (tmp_path / "out").exists()


def test_what_runs_the_operations_is_not_part_of_the_key(tmp_path: Path) -> None:
    path = lines(tmp_path / "r.jsonl", many(5, "k"))
    shares: dict[str, Any] = {"source": [path], "valid_fraction": 0, "test_fraction": 0}
    out = prepare(DataConfig(**shares, executor="inline"), tmp_path / "out")
    before = (out / "manifest.json").stat().st_mtime_ns
    assert prepare(DataConfig(**shares, executor="processes", num_workers=2), out) == out
    assert (out / "manifest.json").stat().st_mtime_ns == before


def test_rows_that_are_too_long_go_with_their_number(tmp_path: Path, tokenizer: Any) -> None:
    out = run(tmp_path, [{"question": "q", "answer": "a"}, {"question": "q", "answer": "word " * 200}], max_length=64)
    (gone,) = read_rejected(out)
    assert (gone.reason, gone.line) == ("too_long", 2) and gone.value.endswith("tokens, at most 64")
    assert int(gone.value.split()[0]) > 200


def test_long_text_is_split_between_sentences(tmp_path: Path, tokenizer: Any) -> None:
    sentences = [f"The {key(str(i))[:6]} number {i} is here." for i in range(40)]
    rows = [{"text": " ".join(sentences)}, {"text": "word" * 300}, {"text": "short"}]
    out = run(tmp_path, rows, max_length=64, over_long="split")
    profile = read_json(out / "profile.json")
    pieces = [row for row in read_examples(out, "train") if row.parents]
    assert " ".join(str(row.text) for row in pieces) == " ".join(sentences)
    assert all(len(encode(row, tokenizer).input_ids) <= 64 for row in pieces) and len(pieces) > 3
    assert {row.parents[0] for row in pieces} == {pieces[0].parents[0]} and len({row.group for row in pieces}) == 1
    assert pieces[0].flags == [f"piece 1 of {len(pieces)}"]
    assert profile["rows_in"] == 3 and profile["pieces"] == len(pieces) - 1
    assert profile["rows_in"] + profile["pieces"] == profile["kept"] + profile["rejected"]
    assert [(r.reason, r.line) for r in read_rejected(out)] == [("too_long", 2)]
    assert "no place to split" in read_rejected(out)[0].value


def test_conversations_are_split_between_exchanges(tmp_path: Path, tokenizer: Any) -> None:
    talk = turns(*(f"{key(str(i))[:20]}" for i in range(12)))
    row = {"messages": [{"role": "system", "content": "be kind"}, *talk]}
    out = run(tmp_path, [row], max_length=80, over_long="split")
    pieces = read_examples(out, "train")
    assert len(pieces) > 1 and all(row.messages and row.messages[0]["content"] == "be kind" for row in pieces)
    assert [m for row in pieces for m in (row.messages or [])[1:]] == talk
    assert all((row.messages or [])[1]["role"] == "user" for row in pieces)


def test_truncation_cuts_the_answer_and_says_so(tmp_path: Path, tokenizer: Any) -> None:
    rows = [{"question": "q", "answer": "many words " * 90}, {"question": "long " * 100, "answer": "a"}]
    out = run(tmp_path, rows, max_length=64, over_long="truncate")
    (row,) = read_examples(out, "train")
    assert 58 <= len(encode(row, tokenizer).input_ids) <= 64
    assert row.flags[0].startswith("truncated from") and (row.messages or [])[0]["content"] == "q"
    (gone,) = read_rejected(out)
    assert gone.reason == "too_long" and "prompt alone" in gone.value


def many(n: int, name: str) -> list[dict[str, str]]:
    return [{"question": f"What is {key(f'{name}{i}')}?", "answer": f"{name} {i}"} for i in range(n)]


def test_sources_are_mixed_by_cap_weight_and_epochs(tmp_path: Path) -> None:
    one, two, three = (lines(tmp_path / f"{n}.jsonl", many(c, n)) for n, c in (("a", 300), ("b", 100), ("c", 40)))

    def mixed(name: str, **more: Any) -> tuple[Counter[str], dict[str, Any], list[Example]]:
        source = [{"path": p, **more.get(Path(p).stem, {})} for p in (one, two, three)]
        out = prepare(DataConfig(source=source, valid_fraction=0, test_fraction=0), tmp_path / name)
        rows = read_examples(out, "train")
        return Counter(Path(r.source["uri"]).stem for r in rows), read_json(out / "profile.json"), rows

    counts, profile, _ = mixed("cap", a={"cap": 50})
    assert counts == {"a": 50, "b": 100, "c": 40} and profile["reasons"] == {"not_sampled": 250}
    counts, profile, _ = mixed("weights", a={"weight": 2}, b={"weight": 1}, c={"weight": 1})
    assert counts == {"a": 80, "b": 40, "c": 40}
    counts, profile, rows = mixed("epochs", c={"epochs": 3, "licence": "CC0"})
    assert counts == {"a": 300, "b": 100, "c": 120} and profile["repeats"] == 80 and profile["kept"] == 440
    assert len({row.id for row in rows}) == 520
    again = [row for row in rows if "epoch 2" in row.flags]
    assert len(again) == 40 and all(row.parents and row.source["licence"] == "CC0" for row in again)
    counts, _, _ = mixed("both", a={"weight": 1}, c={"weight": 1, "epochs": 2})
    assert counts == {"a": 80, "b": 100, "c": 80}


def test_the_rows_that_are_sampled_stay_when_rows_are_added(tmp_path: Path) -> None:
    small, large = (lines(tmp_path / f"{n}.jsonl", many(n, "x")) for n in (200, 220))
    taken = []
    for path in (small, large):
        config = DataConfig(source=[{"path": path, "cap": 100}], valid_fraction=0, test_fraction=0)
        taken.append({row.id for row in read_examples(prepare(config, Path(path).with_suffix("")), "train")})
    assert len(taken[0]) == len(taken[1]) == 100 and len(taken[0] & taken[1]) >= 85


STORY = (
    "The mill stood by the river for ninety years, and in the spring of every year the miller painted its door green."
)


def test_children_carry_parent_group_split_and_licence(tmp_path: Path) -> None:
    letters = "Which one floats?\nA. stone\nB. cork\nC. iron\nAnswer:"
    rows = [
        *many(60, "y"),
        *(
            {
                "instruction": f"Who painted {key(str(i))[:8]}?",
                "input": f"{STORY} {key(str(i))}",
                "output": f"miller {i}",
            }
            for i in range(20)
        ),
        {"prompt": letters, "completion": " B"},
    ]
    path = lines(tmp_path / "r.jsonl", rows)
    wanted = {"templates": 1, "noise": 0.5, "formats": 1, "negatives": 1, "options": 1}
    settings: dict[str, Any] = {
        "valid_fraction": 0.1,
        "test_fraction": 0.1,
        "near_duplicates": False,
        "augment": wanted,
    }
    source = [{"path": path, "licence": "CC-BY"}]
    out = prepare(DataConfig(source=source, **settings), tmp_path / "out")
    rows_now = read_examples(out, "train")
    parents = {row.id: row for row in rows_now if row.generator is None}
    children = [row for row in rows_now if row.generator is not None]
    kinds = Counter(str((row.generator or {})["augment"]) for row in children)
    assert {"templates", "noise", "formats", "negatives"} <= set(kinds)
    assert read_json(out / "profile.json")["augmented"] == dict(kinds)
    for child in children:
        parent = parents[child.parents[0]]
        assert (child.group, child.split, child.source["licence"]) == (parent.group, "train", "CC-BY")
        assert (child.id != parent.id and child.messages != parent.messages) or child.prompt != parent.prompt
    unanswerable = [row for row in children if row.meta.get("unanswerable")]
    assert unanswerable and all((row.messages or [])[-1]["content"] == "The text does not say." for row in unanswerable)
    for split in SPLITS[1:]:
        assert not any(row.generator for row in read_examples(out, split))
    again = prepare(DataConfig(source=source, **settings), tmp_path / "again")
    assert [row.id for row in read_examples(again, "train")] == [row.id for row in rows_now]


def test_options_move_with_their_letter(tmp_path: Path) -> None:
    import random

    from tuneloop.data.choices import reordered

    prompt = "Which one floats?\nA. stone\nB. cork\nC. iron\nAnswer:"
    seen = set()
    for seed in range(20):
        made = reordered(Example(prompt=prompt, completion=" B"), random.Random(seed))
        assert made is not None and made[0].prompt is not None and made[0].completion is not None
        assert f"{made[0].completion.strip()}. cork" in made[0].prompt
        assert made[0].prompt.startswith("Which one floats?\nA. ") and made[0].prompt != prompt
        seen.add(made[0].prompt)
    assert len(seen) > 2
    assert reordered(Example(prompt="no options", completion=" B"), random.Random(0)) is None


def test_typing_errors_are_seeded_and_leave_numbers_alone() -> None:
    import random

    text = "Please describe 12345 different machines with wheels " * 5
    one = typos(text, random.Random(1))
    assert one != text and one == typos(text, random.Random(1)) and one.count("12345") == 5
    assert sum(a != b for a, b in zip(one.split(), text.split(), strict=True)) < 20


@pytest.mark.parametrize(
    ("after", "why"),
    [
        ("", "empty"),
        ("Name three rivers of France.", "nothing changed"),
        ("Name four rivers of France.", "a number or a no changed"),
        ("Which three rivers run through France?", ""),
        ("Bake three cakes", "about something else"),
    ],
)
def test_paraphrases_that_change_the_meaning_do_not_pass(after: str, why: str) -> None:
    assert fault("Name three rivers of France.", after) == why


def test_paraphrases_come_from_the_model_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real model in this process: what it writes is taken or refused with a reason, and the sum is told."""
    wanted = {"augment": {"paraphrase": 1}, "paraphraser": "world", "valid_fraction": 0, "test_fraction": 0}
    path = lines(tmp_path / "r.jsonl", many(4, "z"))
    out = prepare(DataConfig(source=[path], **wanted), tmp_path / "out")  # type: ignore[arg-type]
    told = read_json(out / "profile.json")["augmented"]
    assert sum(told.values()) == 4
    with pytest.raises(ValidationError):
        DataConfig(source=[path], augment={"paraphrase": 1})  # type: ignore[arg-type]


class Rewriter(Replies):
    """Answers a request to rewrite 'What is X?' by 'Tell me what X is', and every third by something else."""

    def do_POST(self) -> None:
        body = self.asked()
        name = re.findall(r"What is (\w+)\?", body["messages"][-1]["content"])[0]
        self.say(f"Tell me what {name} is" if sum(map(ord, name)) % 3 else "Bake some cakes", body)


@pytest.fixture
def rewriter() -> Iterator[str]:
    with serving(Rewriter) as server:
        yield f"{server.url}#teacher"


def test_paraphrases_come_over_http(tmp_path: Path, rewriter: str) -> None:
    wanted: dict[str, Any] = {"augment": {"paraphrase": 1}, "paraphraser": rewriter, "near_duplicates": False}
    names = [key(f"h{i}").translate(str.maketrans("0123456789", "ghijklmnop")) for i in range(30)]
    odd = sum(sum(map(ord, name)) % 3 == 0 for name in names)
    out = run(tmp_path, [{"question": f"What is {n}?", "answer": f"number {i}"} for i, n in enumerate(names)], **wanted)
    told = read_json(out / "profile.json")["augmented"]
    assert told == {"paraphrase": 30 - odd, "paraphrase refused: about something else": odd} and 0 < odd < 30
    rows = {row.id: row for row in read_examples(out, "train")}
    for child in [row for row in rows.values() if row.generator]:
        parent = rows[child.parents[0]]
        asked, now = (str((row.messages or [])[0]["content"]) for row in (parent, child))
        assert now == f"Tell me what {asked[8:-1]} is" and (child.messages or [])[1] == (parent.messages or [])[1]
        assert (child.generator or {})["model"] == rewriter and (child.generator or {})["request"]


def test_rows_are_shown_as_the_model_sees_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where colours do not reach, what is trained stands between marks; every token ends in a bar."""
    from tuneloop.data.show import show

    loaded = load_tokenizer("world")
    out = run(tmp_path, [{"question": "Where does Ada live?", "answer": "in Rome"}])
    show(out, 1, loaded, "plain")
    said = capsys.readouterr().out
    (row,) = read_examples(out, "train")
    found = encode(row, loaded)
    body = said[said.index("trained\n") if "trained\n" in said else said.rindex("trained") :]
    assert f"{sum(found.trained)} of {len(found.input_ids)} tokens trained" in said
    inside = body[body.index("\u00ab") + 1 : body.index("\u00bb")]
    assert inside.replace("\u2502", "").startswith("in Rome") and str(loaded.eos_token) in inside
    assert body.count("\u2502") == len(found.input_ids) and "Ada" not in inside
