"""Scores of options from a server that speaks /completions with echo and log-probabilities."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.answering import Replies, serving

from tuneloop.config import EvalConfig, ModelConfig
from tuneloop.errors import DataError, PartialError, PrerequisiteError
from tuneloop.evaluate import evaluate
from tuneloop.scoring import Served
from tuneloop.store import read_json, read_table

STATE: dict[str, Any] = {}


def tokens(text: str) -> list[str]:
    return re.findall(r" ?\w+|\W", text)


def value(token: str) -> float:
    """The make-believe model likes short words."""
    return -0.5 * len(token)


class Server(Replies):
    def do_POST(self) -> None:
        body = self.asked()
        STATE["calls"] += 1
        STATE["prompts"] += len(body["prompt"])
        if STATE["calls"] > STATE["dies_after"]:
            self.connection.close()
            return
        if any(len(p) > STATE["room"] for p in body["prompt"]):
            self.reply({"error": {"message": "too long", "type": "invalid_request_error"}}, 400)
            return
        choices = [self._choice(i, p, body) for i, p in enumerate(body["prompt"])]
        self.reply({"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": choices[::-1]})

    def _choice(self, index: int, prompt: str, body: dict[str, Any]) -> dict[str, Any]:
        if not body.get("echo"):
            return {"index": index, "finish_reason": "stop", "logprobs": None, "text": " right, then more"}
        parts = [*STATE["ahead"], *tokens(prompt if STATE["spells"] else "something else"), " new"]
        offsets = [len("".join(parts[:i])) for i in range(len(parts))]
        logs = [None, *(value(t) for t in parts[1:])]
        if STATE["broken"]:
            logs[-2] = math.nan
        top = [None, *({t: value(t), "a": -1.0} for t in parts[1:])]
        found = {"tokens": parts, "token_logprobs": logs, "top_logprobs": top, "text_offset": offsets}
        logprobs = None if STATE["silent"] else found
        return {"index": index, "finish_reason": "length", "logprobs": logprobs, "text": prompt + " new"}


@pytest.fixture
def url() -> Iterator[str]:
    STATE.update(calls=0, prompts=0, dies_after=10**9, room=10**9, broken=False, silent=False, ahead=[], spells=True)
    with serving(Server) as held:
        yield held.url


REQUESTS = [("Q: what? A:", [" a", " bb cc"]), ("Q: what? A: ", ["a"])]


def test_sums_count_the_continuation_alone(url: str, tmp_path: Path) -> None:
    served = Served("m", url, tmp_path / "scores.jsonl")
    [[first, second], [third]] = served.score(REQUESTS)
    assert first.logprob == value(" a")
    assert (second.logprob, second.n_tokens) == (value(" bb") + value(" cc"), 2)
    assert third.logprob == value(" a")  # the blank at the prompt's end counts to the continuation
    assert (first.greedy, second.greedy) == (True, False)
    assert served.write(["x"], max_new_tokens=8, stop=[", then"]) == [" right"]


@pytest.mark.parametrize("first", ["<s>", "<|begin_of_text|>", "<bos>"])
def test_a_token_before_the_prompt_is_not_taken_for_its_text(first: str, url: str, tmp_path: Path) -> None:
    STATE["ahead"] = [first]
    served = Served("m", url, tmp_path / "scores.jsonl")
    [[one, two], [three]] = served.score(REQUESTS)
    assert (one.logprob, two.logprob, three.logprob) == (value(" a"), value(" bb") + value(" cc"), value(" a"))
    [[fourth]] = served.score([("<p>Q: what? A:", [" a"])])
    assert fourth.logprob == value(" a") and not fourth.mismatch


@pytest.mark.parametrize(("state", "error", "code"), [
    ({"silent": True}, PrerequisiteError, "212"), ({"room": 5}, DataError, "379"),
    ({"spells": False}, PrerequisiteError, "212"), ({"broken": True}, DataError, "378"),
    ({"dies_after": 0}, PrerequisiteError, "211"),
])  # fmt: skip
def test_what_a_server_cannot_do_is_a_coded_error(
    url: str, tmp_path: Path, state: dict[str, Any], error: type[Exception], code: str
) -> None:
    STATE.update(state)
    with pytest.raises(error, match=code):
        Served("m", url, tmp_path / "scores.jsonl").score(REQUESTS)


def test_a_server_that_dies_half_way_costs_a_chunk(url: str, tmp_path: Path) -> None:
    choices = {"text": ["a", "b b", "ccc"], "label": ["1", "2", "3"]}
    rows = [{"id": f"r{i}", "question": f"q{i}?", "choices": choices, "answerKey": str(i % 3 + 1)} for i in range(20)]
    (tmp_path / "tasks" / "arc_easy").mkdir(parents=True)
    (tmp_path / "tasks" / "arc_easy" / "test.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    config = EvalConfig.model_validate({"tasks": [{"task": "arc_easy", "data": str(tmp_path / "tasks")}]})
    STATE["dies_after"] = 2
    model = ModelConfig(name="m", base_url=url)
    with pytest.raises(PartialError, match="after 32 of 60"):
        evaluate(config, model, tmp_path / "scores")
    STATE.update(dies_after=10**9, prompts=0)
    out = evaluate(config, model, tmp_path / "scores")
    assert STATE["prompts"] == 60 - 32
    table = read_table(out / "rows.parquet").to_pylist()
    assert [r["pred"] for r in table] == [0] * 20
    assert read_json(out / "scores.json")["scores"][0]["value"] == pytest.approx(7 / 20)
