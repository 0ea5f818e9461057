"""The judge: what is parsed, what is refused, and that a place is not a preference."""

from __future__ import annotations

import json

import pytest

from tuneloop.judge import CRITERIA, Case, pairwise, rubric, win_share
from tuneloop.lm import Scripted

CASES = [Case("What is 2 + 2?", "4", "4"), Case("What is 2 + 2?", "5", "4")]


def grades(text: str) -> str:
    right = "<answer>\n4\n</answer>" in text
    return json.dumps({"reason": "sum", **{c.name: 5 if right else 2 for c in CRITERIA}})


def test_rubric_keeps_the_grade_of_each_criterion() -> None:
    good, bad = rubric(Scripted(lambda m: "Sure:\n```json\n" + grades(m[-1]["content"]) + "\n```"), CASES)
    assert good.score == 1.0 and set(good.parts) == {c.name for c in CRITERIA}
    assert bad.score == pytest.approx(0.25)


@pytest.mark.parametrize("said", ["no json", '{"correct": 5}', '{"correct": 9, "complete": 5, "clear": 5}', "{" * 50])
def test_an_unreadable_judge_is_no_zero(said: str) -> None:
    found = rubric(Scripted(lambda _: said), CASES[:1])[0]
    assert found.score is None and found.raw == said


def test_places_are_swapped_and_a_preference_must_survive_it() -> None:
    pair = [(CASES[1], CASES[0])]

    def honest(messages: list[dict[str, str]]) -> str:
        first = messages[-1]["content"].split("<answer_1>")[1].startswith("\n4\n")
        return json.dumps({"better": 1 if first else 2})

    assert pairwise(Scripted(honest), pair)[0].winner == "second"
    lazy = pairwise(Scripted(lambda _: '{"better": 1}'), pair)[0]
    assert lazy.winner == "tie" and lazy.by_place
    assert pairwise(Scripted(lambda _: '{"better": 0}'), pair)[0].winner == "tie"
    mute = pairwise(Scripted(lambda _: "hm"), pair)
    assert mute[0].winner is None
    assert win_share([*mute, lazy]) == ([0.5], 1)


def test_a_long_answer_is_cut_aloud_for_the_judge() -> None:
    seen: list[str] = []
    rubric(Scripted(lambda m: seen.append(m[-1]["content"]) or ""), [Case("q", "x" * 20_000)])  # type: ignore[func-returns-value]
    assert "[cut]" in seen[0] and len(seen[0]) < 9000
