"""Rows made by a scripted teacher: every method, the order of acceptance, limits, resumption, refusals by name."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tuneloop.config import GenerateConfig
from tuneloop.errors import DataError, PartialError, PrerequisiteError, TuneloopError, UsageError
from tuneloop.generate import generate, preview_run, verify
from tuneloop.generate.methods import METHODS
from tuneloop.generate.prompts import Templates
from tuneloop.lm.asking import Answer, Ask, Failed, request_key
from tuneloop.lm.journal import Journal
from tuneloop.records import Example, example_id, write_examples
from tuneloop.store import open_run, read_json
from tuneloop.teacher import WorldTeacher
from tuneloop.world import make
from tuneloop.world.corpus import documents

LOOSE = {"similarity": None, "near_duplicate": None}


class Slow(WorldTeacher):
    """Answers in random order and counts what it is asked."""

    def __init__(self, seed: int = 0, **more: Any) -> None:
        super().__init__(**more)
        self.random, self.asked = random.Random(seed), list[str]()

    async def ask(self, ask: Ask, key: str) -> Answer:
        await asyncio.sleep(self.random.random() * 0.01)
        self.asked.append(key)
        return await super().ask(ask, key)


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A data folder of world questions, all in train."""
    folder = tmp_path_factory.mktemp("seeds") / "data"
    reader, rng = WorldTeacher().reader, random.Random(5)
    rows = []
    for number in range(24):
        fact = reader.another(rng, None)
        answer = fact.wrong[0] if number % 2 else fact.answer  # some for `regenerate` to mend
        turns = [{"role": "user", "content": fact.question}, {"role": "assistant", "content": answer}]
        row = Example(messages=turns, group=f"g{number}", split="train")
        row.id = example_id(row)
        rows.append(row)
    with open_run(folder, stage="data", config={}, inputs={}) as run:
        write_examples(folder, "train", rows)
        run.finish()
    return str(folder)


def config(method: str, **more: Any) -> GenerateConfig:
    return GenerateConfig.model_validate({"method": method, "filters": LOOSE, "window": 16, **more})


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def answered(out: Path) -> set[str]:
    """Request keys with an answer in the journal."""
    lines = map(json.loads, (out / "journal.jsonl").read_text().splitlines())
    return {line["call"] for line in lines if line.get("state") == "ok"}


def inputs_for(method: str, seeds: str, folder: Path) -> dict[str, Any]:
    (folder / "doc.txt").write_text(
        "\n\n".join(text for text, _ in zip(documents(make(0), 1), range(12), strict=False))
    )
    asked = [f"Question: What does {name} work as now?\nAnswer:" for name in sorted(make(0).people)[:3]]
    rows = [asked[0], {"question": asked[1], "answer": "baker"}, {"prompt": asked[2]}]
    line = {"stage": "generate", "slice": "craft", "budget": 20, "why": "missing", "action": "add", "rows": rows}
    (folder / "next.jsonl").write_text(json.dumps({"stage": "data", "rows": []}) + "\n" + json.dumps(line) + "\n")
    given = {"seeds": {"seeds": [seeds]}, "documents": {"documents": [str(folder / "doc.txt")]}}
    return given.get(METHODS[method].inputs, {"weak": str(folder / "next.jsonl")} if METHODS[method].inputs else {})


@pytest.mark.parametrize("method", METHODS)
def test_each_method_makes_rows_with_lineage(method: str, seeds: str, tmp_path: Path) -> None:
    teacher = WorldTeacher(mistakes=0.4 if method == "preference" else 0.0)
    settings = config(method, limits={"rows": 8}, licence="ours", **inputs_for(method, seeds, tmp_path))
    out = generate(settings, teacher, tmp_path / "out")
    rows = rows_of(out)
    summary = read_json(out / "summary.json")
    assert 0 < len(rows) <= 8
    assert summary["accepted"] == len(rows)
    journal = answered(out)
    for row in rows:
        made = row["generator"]
        assert (made["model"], made["method"], made["licence"]) == ("world", method, "ours")
        assert set(made["requests"]) <= journal
        assert made["request"] in journal
        assert (made.get("split") == "train") == (METHODS[method].inputs == "seeds")
        assert bool(row["parents"]) == (method not in ("magpie", "weak_slices"))
    if method in ("evolve", "paraphrase", "regenerate", "preference", "refusals", "multi_turn", "personas"):
        assert all(len(row["parents"]) == 1 and row["group"].startswith("g") for row in rows)
    if method == "preference":
        assert all(row["scores"]["chosen"] > row["scores"]["rejected"] for row in rows)


def test_the_accepted_set_does_not_depend_on_the_order_of_answers(seeds: str, tmp_path: Path) -> None:
    found = []
    for number in range(3):
        settings = config("evolve", seeds=[seeds], limits={"rows": 40}, filters={"similarity": 0.95})
        out = generate(settings, Slow(number), tmp_path / str(number))
        found.append(((out / "rows.jsonl").read_text(), (out / "rejected.jsonl").read_text()))
    assert found[0] == found[1] == found[2]


def test_higher_limits_go_on_and_ask_nothing_twice(seeds: str, tmp_path: Path) -> None:
    first, second = Slow(1), Slow(2)
    out = generate(config("self_instruct", seeds=[seeds], limits={"rows": 20}), first, tmp_path / "out")
    before = rows_of(out)
    journalled = answered(out)
    generate(config("self_instruct", seeds=[seeds], limits={"rows": 60}), second, out)
    after = rows_of(out)
    assert (len(before), len(after)) == (20, 60)
    assert after[:20] == before
    assert not journalled & set(second.asked)
    third = Slow(3)
    generate(config("self_instruct", seeds=[seeds], limits={"rows": 60}), third, out)
    assert third.asked == []


def test_limits_in_tokens_and_money_end_a_run_near_them(seeds: str, tmp_path: Path) -> None:
    price = {"input": 1.0, "output": 10.0}
    for name, limits in (("tokens", {"tokens": 9000}), ("usd", {"usd": 0.02})):
        settings = config("self_instruct", seeds=[seeds], limits=limits, teacher={"price": price})
        summary = read_json(generate(settings, WorldTeacher(), tmp_path / name) / "summary.json")
        spent = summary["tokens_in"] + summary["tokens_out"] if name == "tokens" else summary["cost_usd"]
        assert summary["stopped"] == name
        assert 0.7 * limits[name] < spent <= 1.05 * limits[name]
    with pytest.raises(ValueError, match="unknown price"):
        config("self_instruct", limits={"usd": 1.0})


class Answers(WorldTeacher):
    def __init__(self, say: Callable[[Ask], str]) -> None:
        super().__init__()
        self.say = say

    async def ask(self, ask: Ask, key: str) -> Answer:
        return Answer(self.say(ask), "stop", 10, 10)


def test_a_run_without_fruit_stops_early_and_quotes_an_answer(seeds: str, tmp_path: Path) -> None:
    settings = config("self_instruct", seeds=[seeds], limits={"rows": 1000})
    with pytest.raises(PartialError, match="TL-430") as caught:
        generate(settings, Answers(lambda ask: "I like turtles"), tmp_path / "out")
    assert "I like turtles" in caught.value.where
    assert "20 parse" in caught.value.what
    assert len(answered(tmp_path / "out")) <= 120  # an answer and its repair for each candidate under way


def test_one_repair_is_asked_for_and_then_it_is_a_typed_failure(seeds: str, tmp_path: Path) -> None:
    def say(ask: Ask) -> str:
        good = json.dumps({"tasks": [{"instruction": f"Say the number {ask.seed} aloud.", "answer": str(ask.seed)}]})
        last = str(ask.messages[-1]["content"])
        return good if "fits this JSON schema" in last else good.replace("answer", "reply")

    out = generate(config("self_instruct", seeds=[seeds], limits={"rows": 30}), Answers(say), tmp_path / "good")
    assert len(rows_of(out)) == 30
    assert all(len(row["generator"]["requests"]) == 2 for row in rows_of(out))

    def half(ask: Ask) -> str:
        return say(ask) if (ask.seed or 0) % 2 else '{"tasks": "none"}'

    summary = read_json(generate(config("self_instruct", seeds=[seeds], limits={"rows": 30}), Answers(half),
                                 tmp_path / "half") / "summary.json")  # fmt: skip
    assert summary["failed"]["schema"] > 5
    assert summary["accepted"] + summary["failed"]["schema"] + sum(summary["dropped"].values()) >= summary["candidates"]


def test_a_teacher_without_the_capability_is_refused_before_the_start(tmp_path: Path) -> None:
    teacher = WorldTeacher()
    teacher.capabilities = frozenset({"chat"})
    with pytest.raises(UsageError, match="TL-161"):
        generate(config("magpie", limits={"rows": 3}), teacher, tmp_path / "out")

    class Gone(WorldTeacher):
        async def ask(self, ask: Ask, key: str) -> Answer:
            raise Failed("request", "no such model")

    with pytest.raises(PrerequisiteError, match="TL-214"):
        generate(config("magpie", limits={"rows": 3}), Gone(), tmp_path / "out2")


def test_mistakes_in_the_config_are_named(seeds: str, tmp_path: Path) -> None:
    cases: list[tuple[GenerateConfig, str]] = [
        (config("self_instrct"), "did you mean 'self_instruct'"),
        (config("self_instruct", seeds=[seeds]), "TL-168"),
        (config("paraphrase"), "TL-166"),
        (config("documents", documents=["nowhere.txt"]), "TL-110"),
        (config("paraphrase", seeds=[seeds], decontaminate=["arc_esay"]), "TL-174"),
    ]
    for number, (settings, said) in enumerate(cases):
        with pytest.raises(TuneloopError, match=said):
            generate(settings, WorldTeacher(), tmp_path / str(number))


def test_templates_are_strict_replaceable_and_sandboxed(seeds: str, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "answer.jinja").write_text("Please: {{ instrution }}")
    with pytest.raises(UsageError, match="'instrution' is undefined") as caught:
        Templates(own).render("answer", instruction="x")
    assert "answer.jinja" in caught.value.where
    assert "instruction" in caught.value.expected
    (own / "answer.jinja").write_text("{{ ''.__class__.__mro__ }}")
    with pytest.raises(UsageError, match="TL-16"):
        Templates(own).render("answer", instruction="x")
    (own / "answer.jinja").write_text("{% for %}")
    with pytest.raises(UsageError, match=r"TL-165 not a template"):
        Templates(own).render("answer", instruction="x")
    (own / "answer.jinja").rename(own / "anser.jinja")
    with pytest.raises(UsageError, match="did you mean 'answer'"):
        Templates(own)
    (own / "anser.jinja").unlink()
    (own / "self_instruct.jinja").write_text('Mine: {{ examples|length }} {{ count }} {"tasks": [...]}')
    settings = config("self_instruct", seeds=[seeds], limits={"rows": 5}, templates=str(own))
    shown = preview_run(settings, WorldTeacher(), tmp_path / "none")
    assert shown.prompt.startswith("Mine: 8 4")
    assert shown.usd is None


def test_a_check_that_breaks_costs_its_candidate_and_no_run(
    seeds: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def breaks(text: str) -> str | None:
        calls.append(text)
        return str(int("1" * 5000)) if len(calls) % 3 == 0 else None

    monkeypatch.setitem(verify.CHECKS, "json", breaks)
    for method in ("self_instruct", "regenerate"):
        calls.clear()
        settings = config(method, seeds=[seeds], limits={"rows": 6}, verify=["json"])
        out = generate(settings, WorldTeacher(), tmp_path / method)
        assert len(rows_of(out)) == 6
        assert read_json(out / "summary.json")["dropped"]["check_ValueError"] >= 1
        assert "4300 digits" in (out / "rejected.jsonl").read_text()

    def full(text: str) -> str | None:
        raise OSError("no space")

    monkeypatch.setitem(verify.CHECKS, "json", full)
    with pytest.raises(OSError, match="no space"):
        generate(settings, WorldTeacher(), tmp_path / "full")


def test_judge_keeps_sub_scores_and_drops_what_is_wrong(seeds: str, tmp_path: Path) -> None:
    settings = config("self_instruct", seeds=[seeds], limits={"rows": 12}, judge={"minimum": 0.7})
    out = generate(settings, WorldTeacher(mistakes=0.5), tmp_path / "out")
    assert all({"judge", "judge_correct", "judge_clear"} <= set(row["scores"]) for row in rows_of(out))
    assert read_json(out / "summary.json")["dropped"]["judge"] >= 4


def test_the_judges_tokens_count_and_an_unknown_price_stays_unknown(seeds: str, tmp_path: Path) -> None:
    known = {"price": {"input": 1.0, "output": 2.0}}
    judge = {"minimum": 0.7, "teacher": {"name": "judge", "price": {"input": 3.0, "output": 4.0}}}
    shown = []
    for name, teacher, graded in (("both", known, judge), ("one", known, judge | {"teacher": {"name": "judge"}})):
        settings = config("self_instruct", seeds=[seeds], limits={"rows": 4}, teacher=teacher, judge=graded)
        out = generate(settings, WorldTeacher(), tmp_path / name, judge=WorldTeacher(name="judge"))
        shown.append(read_json(out / "summary.json"))
    lines = map(json.loads, (tmp_path / "both" / "journal.jsonl").read_text().splitlines())
    told = {"judge": [0, 0], "self_instruct": [0, 0]}
    kinds: dict[str, str] = {}
    for line in lines:
        if line.get("state") == "pending":
            kinds[line["call"]] = line["template"]
        elif line.get("state") == "ok":
            told[kinds[line["call"]]][0] += line["in"]
            told[kinds[line["call"]]][1] += line["out"]
    wanted = (
        1 * told["self_instruct"][0] + 2 * told["self_instruct"][1] + 3 * told["judge"][0] + 4 * told["judge"][1]
    ) / 1e6
    assert shown[0]["candidates"] == 4  # four started, four decided: all that was asked counts
    assert shown[0]["cost_usd"] == pytest.approx(wanted)
    assert shown[0]["tokens_judge"] == sum(told["judge"]) > 0
    assert shown[1]["cost_usd"] is None
    with pytest.raises(ValueError, match="unknown price"):
        config("self_instruct", teacher=known, judge={"teacher": {"name": "judge"}}, limits={"usd": 1.0})


def test_a_limit_in_seconds_ends_a_run_that_goes_on_later(seeds: str, tmp_path: Path) -> None:
    class Tired(WorldTeacher):
        async def ask(self, ask: Ask, key: str) -> Answer:
            await asyncio.sleep(0.05)
            return await super().ask(ask, key)

    settings = config("self_instruct", seeds=[seeds], limits={"rows": 5000, "seconds": 0.4}, window=8)
    first = read_json(generate(settings, Tired(), tmp_path / "out") / "summary.json")
    assert first["stopped"] == "seconds"
    assert 0 < first["accepted"] < 5000
    longer = settings.limits.model_copy(update={"rows": first["accepted"] + 20, "seconds": None})
    more = settings.model_copy(update={"limits": longer})
    assert read_json(generate(more, Tired(), tmp_path / "out") / "summary.json")["stopped"] == "rows"


def test_the_estimate_counts_what_a_method_asks(seeds: str, tmp_path: Path) -> None:
    for method, more, calls in (
        ("regenerate", {"best_of": 3}, 6), ("regenerate", {"best_of": 3, "verify": ["arithmetic"]}, 3),
        ("multi_turn", {"turns": 4}, 6), ("paraphrase", {"judge": {}}, 2),
    ):  # fmt: skip
        settings = config(method, seeds=[seeds], limits={"rows": 1}, **more)
        teacher = Slow()
        shown = preview_run(settings, teacher, tmp_path / "none")
        assert shown.calls == calls
        assert teacher.asked == []


def test_rows_that_repeat_a_benchmark_are_kept_out(seeds: str, tmp_path: Path) -> None:
    plain = config("self_instruct", seeds=[seeds], limits={"rows": 20})
    rows = rows_of(generate(plain, WorldTeacher(), tmp_path / "plain"))
    taken = [row["messages"][0]["content"] for row in rows[:5]]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps({"question": text}) + "\n" for text in taken))
    clean = plain.model_copy(update={"decontaminate": [str(tmp_path / "test.jsonl")]})
    out = generate(clean, WorldTeacher(), tmp_path / "clean")
    assert not {row["messages"][0]["content"] for row in rows_of(out)} & set(taken)
    assert read_json(out / "summary.json")["dropped"]["contaminated"] >= 5


def test_a_torn_journal_line_is_read_over_and_the_next_one_is_whole(tmp_path: Path) -> None:
    ask = Ask(messages=({"role": "user", "content": "x"},))
    key = request_key("m", ask)
    journal = Journal(tmp_path / "j")
    journal.pending(key, "t", ask.payload())
    journal.ok(key, Answer("ä answer"))
    journal.pending("other", "t", {})
    journal.close()
    whole = (tmp_path / "j").read_bytes()
    for cut in range(1, 60):
        (tmp_path / "j").write_bytes(whole[:-cut])
        again = Journal(tmp_path / "j")
        assert again.answers[key].text == "ä answer"
        again.ok("third", Answer("3"))
        again.close()
        assert json.loads((tmp_path / "j").read_text().splitlines()[-1])["text"] == "3"


def test_only_failures_that_no_answer_followed_are_tried_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.failed("early", Failed("timeout", "-"))
    journal.failed("refused", Failed("request", "-"))
    journal.ok("good", Answer("x"))
    journal.failed("late", Failed("transport", "-"))
    journal.close()
    again = Journal(tmp_path / "j")
    assert set(again.failures) == {"early", "refused"}
    again.close()


def test_a_call_that_waits_for_another_try_is_not_in_flight(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j")
    journal.pending("back", "t", {})
    journal.waiting("back", Failed("server", "-"))
    journal.pending("sent again", "t", {})
    journal.waiting("sent again", Failed("server", "-"))
    journal.pending_again("sent again", 2)
    journal.close()
    again = Journal(tmp_path / "j")
    assert again.unfinished == {"sent again"}
    assert not again.failures
    again.close()


def test_no_seed_is_a_coded_error(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    with open_run(folder, stage="data", config={}, inputs={}) as run:
        write_examples(folder, "train", [])
        run.finish()
    with pytest.raises(DataError, match="TL-395"):
        generate(config("paraphrase", seeds=[str(folder)]), WorldTeacher(), tmp_path / "out")
