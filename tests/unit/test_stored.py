"""Scored rows without the model: other metrics, two runs row by row, a judge between them, lm-eval's files, servers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.answering import Replies, serving

from tuneloop.config import EvalConfig, JudgeSpec, LoopConfig, ModelConfig, TaskSpec
from tuneloop.errors import DataError, PartialError, TuneloopError, UsageError
from tuneloop.evaluate import Prompting, evaluate, harness
from tuneloop.evaluate.export import export_samples
from tuneloop.evaluate.rows import Part, blank
from tuneloop.evaluate.run import judge_inputs
from tuneloop.evaluate.seeds import over_seeds
from tuneloop.evaluate.stored import diff, judge_pairs, rescore
from tuneloop.evaluate.tables import diff_lines, run_lines
from tuneloop.records import Example, write_examples
from tuneloop.rounds import run_rounds
from tuneloop.store import read_json, read_table

ROWS = 24


class Server(ThreadingHTTPServer):
    """Adds two numbers, a wrong sum for every third question; judges by the shorter answer; dies after `lives`."""

    lives = 10**9
    asked = 0
    refuses = False


class Handler(Replies):
    server: Server

    def do_POST(self) -> None:
        body = self.asked()
        self.server.asked += 1
        if self.server.asked > self.server.lives:
            self.send_error(500, "out of order")
            return
        asked = body["messages"][-1]["content"]
        if "What is 5 " in asked and self.server.refuses:
            self.send_error(400, "no fives")
            return
        text = self.answer(asked)
        usage = {"prompt_tokens": 7, "completion_tokens": len(text.split()), "total_tokens": 0}
        self.say(text, body, usage=usage)

    def answer(self, text: str) -> str:
        if "<answer_1>" in text:
            first, second = (text.split(f"<answer_{i}>\n")[1].split("\n<")[0] for i in (1, 2))
            return json.dumps({"better": 0 if len(first) == len(second) else 1 if len(first) < len(second) else 2})
        if "<answer>" in text:
            return '{"reason": "ok", "exact": 5}'
        a, b = (int(n) for n in text.split("What is ")[-1].split("?")[0].split(" + "))
        said = a + b + (1 if "step by step" not in text and a % 3 == 0 else 0)
        return f"Adding up.\nAnswer: {said}" if "step by step" in text else f"The sum is {said}"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Handler, Server) as held:
        yield held


@pytest.fixture
def data(tmp_path: Path) -> Path:
    def row(i: int, split: str) -> Example:
        turns = [{"role": "user", "content": f"What is {i} + {i}?"}, {"role": "assistant", "content": f"#### {2 * i}"}]
        return Example(id=f"{split}{i}", split=split, kind="chat", messages=turns)

    write_examples(tmp_path / "data", "train", [row(i, "train") for i in range(100, 110)])
    write_examples(tmp_path / "data", "test", [row(i, "test") for i in range(ROWS)])
    return tmp_path / "data"


def model(server: Server) -> ModelConfig:
    return ModelConfig(name="adder", base_url=f"http://127.0.0.1:{server.server_port}/v1")


CONFIG = EvalConfig(metrics=["numeric", "rouge_l", "bleu", "regex:\\d"])


def test_a_server_is_scored_and_one_that_dies_resumes(
    server: Server, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneloop.lm.kept.FIRST_WAIT_S", 0.01)
    server.lives = 17
    with pytest.raises(PartialError, match="17 of 24"):
        evaluate(CONFIG, model(server), tmp_path / "scores", data=data)
    server.lives, server.asked = 10**9, 0
    out = evaluate(CONFIG, model(server), tmp_path / "scores", data=data)
    assert server.asked == ROWS - 17
    scores = {s["metric"]: s for s in read_json(out / "scores.json")["scores"]}
    assert scores["numeric"]["value"] == pytest.approx(16 / 24) and scores["numeric"]["n"] == ROWS
    assert scores["regex:\\d"]["value"] == 1.0 and scores["numeric"]["seconds"] is None  # half of it was another day's
    assert "version:" in scores["bleu"]["note"]
    rows = read_table(out / "rows.parquet").to_pylist()
    assert [r["correct"] for r in rows] == [r["score_numeric"] for r in rows]
    assert rows[0]["answer_tokens"] == 4 and rows[0]["prompt_tokens"] == 7


def test_a_row_that_the_server_refuses_is_counted_as_empty(
    server: Server, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.refuses = True
    rows = rows_of(evaluate(CONFIG, model(server), tmp_path / "scores", data=data))
    assert [r["text_pred"] for r in rows if "empty" in r["flags"]] == [""]  # type: ignore[operator]
    assert len(rows) == ROWS and "refused 1 of 24" in capsys.readouterr().err


def test_a_server_is_not_asked_for_what_only_a_model_here_gives(server: Server, data: Path, tmp_path: Path) -> None:
    with pytest.raises(TuneloopError, match="154"):
        evaluate(EvalConfig(metrics=["perplexity"]), model(server), tmp_path / "scores", data=data)


def test_a_server_that_never_answers_is_no_partial_result(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tuneloop.lm.kept.FIRST_WAIT_S", 0.01)
    gone = ModelConfig(name="x", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(TuneloopError, match="211"):
        evaluate(EvalConfig(metrics=["numeric"]), gone, tmp_path / "scores", data=data)


def test_scored_again_compared_judged_and_exported(server: Server, data: Path, tmp_path: Path) -> None:
    plain = evaluate(CONFIG, model(server), tmp_path / "plain", data=data)
    thinking = Prompting(thinks=True)
    thought = evaluate(CONFIG, model(server), tmp_path / "thought", data=data, prompting=thinking)
    assert {r["text_pred"] for r in read_table(thought / "rows.parquet").to_pylist()} == {
        str(2 * i) for i in range(ROWS)
    }
    asked = server.asked

    spec = JudgeSpec(model="j", base_url=model(server).base_url, criteria={"exact": "Is it exact?"})
    again = rescore(plain, ["similarity", "judge"], tmp_path / "again", judge=spec)
    scores = {s["metric"]: s for s in read_json(again / "scores.json")["scores"]}
    assert set(scores) == {"similarity", "judge", "judge_exact"}
    assert scores["judge"]["value"] == 1.0 and server.asked == asked + ROWS
    rows = read_table(again / "rows.parquet").to_pylist()
    assert rows[0]["correct"] == rows[0]["score_similarity"] and rows[0]["score_judge_exact"] == 1.0
    with pytest.raises(DataError, match="metric similarity on one side and numeric on the other"):
        diff(again, plain)

    found = diff(thought, plain)
    assert found["tests"][0]["c"] == 8 and found["tests"][0]["verdict"] == "better"
    assert len(found["changed"]) == 8 and "8 won" in "\n".join(diff_lines(found, 3))
    assert "*" not in "\n".join(run_lines([plain, thought]))

    won = read_json(judge_pairs(thought, plain, spec, tmp_path / "judged") / "judged.json")["tasks"][0]
    assert won["win"] == 1.0 and won["pairs"] == ROWS and won["unread"] == 0

    files = export_samples(plain, tmp_path / "lm-eval")
    lines = [json.loads(line) for line in files[0].read_text().splitlines()]
    assert len(lines) == ROWS and lines[0]["numeric"] == rows_of(plain)[0]["correct"]
    assert {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "filter", "doc_hash"} <= set(lines[0])
    assert lines[1]["filtered_resps"][0] == "The sum is 2"
    assert read_json(files[-1])["results"]["test:numeric"]["numeric,none"] == pytest.approx(16 / 24)


@pytest.mark.parametrize("how", ["metric", "rescored", "pairs"])
def test_a_judge_that_dies_goes_on_without_asking_twice(
    server: Server, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr("tuneloop.lm.kept.FIRST_WAIT_S", 0.01)
    spec = JudgeSpec(model="j", base_url=model(server).base_url, criteria={"exact": "Is it exact?"})
    plain = evaluate(CONFIG, model(server), tmp_path / "plain", data=data)
    thought = evaluate(CONFIG, model(server), tmp_path / "thought", data=data, prompting=Prompting(thinks=True))
    judged = EvalConfig(metrics=["numeric", "judge"], judge=spec)

    def run() -> Path:
        if how == "metric":  # the answers to judge are asked for first
            return evaluate(judged, model(server), tmp_path / "out", data=data)
        if how == "rescored":
            return rescore(plain, ["judge"], tmp_path / "out", judge=spec)
        return judge_pairs(thought, plain, spec, tmp_path / "out")

    whole = 2 * ROWS if how in ("metric", "pairs") else ROWS
    server.asked, server.lives = 0, whole - 11
    with pytest.raises(PartialError, match=f"of {2 * ROWS if how == 'pairs' else ROWS} answers"):
        run()
    server.lives, server.asked = 10**9, 0
    out = run()
    assert server.asked == 11
    assert not (out / "partial").exists()
    assert (out / "manifest.json").is_file() and run() == out and server.asked == 11


def rows_of(folder: Path) -> list[dict[str, object]]:
    return list(read_table(folder / "rows.parquet").to_pylist())


def test_categories_that_changed_are_found_among_many(tmp_path: Path) -> None:
    from tuneloop.evaluate.rows import Part, blank, write_part

    def run(name: str, right: set[str]) -> Path:
        rows = [
            blank("t", f"{c}{i}", correct=float(c in right), category=c, gold=0) for c in "abcdefgh" for i in range(12)
        ]
        (tmp_path / name).mkdir()
        write_part(tmp_path / name, [Part([{"task": "t", "metric": "acc"}], rows)], {})
        return tmp_path / name

    found = diff(run("after", {"a", "b"}), run("before", {"b", "c"}))
    assert [(t["category"], t["diff"], t["of"]) for t in found["categories"]] == [("a", 1.0, 8), ("c", -1.0, 8)]
    # Exact McNemar on 12 rows that all flip, twice 2^-12, times 8 / 2 for the second of eight.
    assert found["categories"][1]["p_adjusted"] == pytest.approx(2 * 2**-12 * 8 / 2)
    assert "among 8 categories" in "\n".join(diff_lines(found, 0))


def test_a_task_scored_by_itself_and_in_a_group_is_refused(tmp_path: Path) -> None:
    from tuneloop.evaluate.rows import Part, blank, write_part

    part = Part([{"task": "lm-eval:a", "metric": "acc"}], [blank("lm-eval:a", "00000", correct=1.0)])
    with pytest.raises(UsageError, match="TL-159.*lm-eval:a"):
        write_part(tmp_path, [part, part], {})
    assert not list(tmp_path.iterdir())


def test_the_interval_of_a_few_shares_stays_inside_0_and_1() -> None:
    from tuneloop.evaluate.rows import share_score

    found = share_score("t", "mc2", [0.9, 1.0, 0.95, 0.2])
    assert found["high"] == 1.0 and 0.0 < found["low"] < found["value"]
    assert share_score("t", "mean_logprob", [-1.0, 0.5])["low"] < -1.0  # not shares: Student's interval as it is


def test_two_runs_on_other_rows_are_refused(server: Server, data: Path, tmp_path: Path) -> None:
    config = EvalConfig(metrics=["numeric"])
    whole = evaluate(config, model(server), tmp_path / "whole", data=data)
    some = evaluate(config.model_copy(update={"limit": 20}), model(server), tmp_path / "some", data=data)
    with pytest.raises(DataError, match="4 rows of task 'test:numeric' differ"):
        diff(some, whole)
    assert "not comparable" in run_lines([whole, some])[-1]


def test_options_are_scored_again_from_their_log_likelihoods(tmp_path: Path) -> None:
    from tuneloop.evaluate.rows import Part, blank, write_part

    logs = {"logprobs": [-1.0, -3.0], "lengths": [1, 6], "options": ["a", "bbbbbb"], "gold": 1, "golds": [1], "pred": 0}
    rows = [blank("t", str(i), correct=0.0, **logs) for i in range(4)]
    entry = {"task": "t", "metric": "acc", "value": 0.0, "stderr": 0.0, "shots": 2}
    write_part(tmp_path / "scores", [Part([entry], rows)], {})
    # By characters the longer option wins: -3 / 6 > -1 / 1.
    again = read_json(rescore(tmp_path / "scores", ["acc_norm", "p_gold"], tmp_path / "again") / "scores.json")[
        "scores"
    ]
    assert [(s["metric"], s["shots"], s["chance"]) for s in again] == [("acc_norm", 2, 0.5), ("p_gold", 2, 0.5)]
    assert again[0]["value"] == 1.0 and again[1]["value"] == pytest.approx(0.1192, abs=1e-4)
    with pytest.raises(DataError, match="396"):
        rescore(tmp_path / "scores", ["exact_match"], tmp_path / "out")
    with pytest.raises(TuneloopError, match="150"):
        rescore(tmp_path / "scores", ["exact"], tmp_path / "out")


def test_a_run_is_not_scored_again_into_itself(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TL-142"):
        rescore(tmp_path, ["rouge_l"], tmp_path / ".")


def test_another_judge_or_another_question_is_another_run() -> None:
    specs = [
        JudgeSpec(model="j", base_url="http://a"),
        JudgeSpec(model="j", base_url="http://b"),
        JudgeSpec(model="j", base_url="http://a", criteria={"price": "Is it cheap?"}),
        JudgeSpec(model="j", base_url="http://a", criteria={"price": "Is it dear?"}),
    ]
    inputs = [str(judge_inputs(spec)) for spec in specs]
    assert len(set(inputs)) == 4 and judge_inputs(None) == {}


def test_rows_that_one_draw_of_shots_could_not_score_are_left_out_of_the_spread() -> None:
    def run(seed: int) -> Part:
        values = [1.0, None if seed == 1 else 0.0, 1.0]
        rows = [blank("t", str(i), correct=v) for i, v in enumerate(values)]
        return Part(rows=rows, scores=[{"task": "t"}])

    assert over_seeds(run, 2, 0).scores[0]["seeds"]["means"] == [1.0, 1.0]
    assert "seeds" not in over_seeds(lambda seed: Part(rows=[blank("t", "0")], scores=[{"task": "t"}]), 2, 0).scores[0]


def test_an_answer_that_lm_eval_reads_in_two_ways_is_one_row() -> None:
    samples = [
        {
            "doc_id": i, "filter": name, "metrics": ["exact_match"], "exact_match": float(name != "strict" or i % 2),
            "arguments": [["Q?", {}]], "filtered_resps": [f"{i}"], "target": "1",
        }
        for name in ("strict", "flexible") for i in range(5)
    ]  # fmt: skip
    rows = harness._rows("t", samples, Part(), lambda text, **_: {"input_ids": text.split()})
    assert [r["row"] for r in rows] == [f"{i:05d}" for i in range(5)]
    assert [r["correct"] for r in rows] == [0.0, 1.0, 0.0, 1.0, 0.0]
    assert [r["score_exact_match/flexible"] for r in rows] == [1.0] * 5


def test_tasks_of_lm_eval_have_no_halves(tmp_path: Path) -> None:
    foreign = [{"task": "lm-eval:piqa"}]
    with pytest.raises(UsageError, match="TL-141"):
        run_rounds(LoopConfig.model_validate({"eval": {"tasks": foreign}}), tmp_path / "loop", 2)
    with pytest.raises(UsageError, match="TL-141"):
        harness.run_harness(TaskSpec(task="lm-eval:piqa"), EvalConfig(half="report"), None, None, 0)  # type: ignore[arg-type]
