"""Generation against a server that misbehaves, over real HTTP: nothing lost, nothing asked twice, kills undone."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from benchmarks.generate_kills import Server, answered, lost, run_to_end, start, trial

from tuneloop.config import DataConfig, GenerateConfig
from tuneloop.data import prepare
from tuneloop.generate import generate
from tuneloop.generate.methods import METHODS
from tuneloop.lm import Http
from tuneloop.lm.asking import Ask, Failed
from tuneloop.lm.http import retry_after
from tuneloop.store import read_json
from tuneloop.teacher import WorldTeacher, prepare_seeds
from tuneloop.world import make
from tuneloop.world.corpus import documents

SEEDS = [{"question": f"What is the {word} of the {thing}?", "answer": f"{word}"}
         for word in ("colour", "name", "weight", "age") for thing in ("ship", "house", "tree", "king")]  # fmt: skip


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seeds")
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in SEEDS))
    settings = DataConfig(source=[str(folder / "rows.jsonl")], valid_fraction=0, test_fraction=0)
    return prepare(settings, folder / "data")


def test_all_faults_at_once_and_the_counts_are_exact(seeds: Path, tmp_path: Path) -> None:
    with Server(tmp_path / "log", "--rate", "0.5", "--permanent", "0.1", "--seed", "3") as server:
        run_to_end(start(server.url, seeds, tmp_path / "out", "--set", "generate.limits.rows=40"))
        lines = server.lines()
    asked = Counter(line[2] for line in lines if line[0] == "ask" and line[2] != "-")
    done = Counter(line[2] for line in lines if line[0] == "done")
    summary = read_json(tmp_path / "out" / "summary.json")
    calls = summary["calls"]
    ok = answered(tmp_path / "out" / "journal.jsonl")
    # Each journalled answer is one answer of the server, once; each retry is one request more.
    assert ok <= set(done)
    assert all(done[key] == 1 for key in ok)
    retries = sum(count for name, count in calls.items() if name.startswith("retry_"))
    assert calls["calls"] == len(ok)
    sent = calls["calls"] + retries + calls.get("failed_request", 0)
    assert 0 <= sum(asked.values()) - sent <= summary["limiter"]["peak"]  # under way when the last row was there
    kinds = {name.removeprefix("retry_") for name in calls if name.startswith("retry_")}
    assert kinds == {"rate_limit", "server", "timeout", "transport", "protocol"}
    assert summary["limiter"]["cuts"] > 0
    assert summary["failed"]["request"] > 0
    assert summary["accepted"] == 40
    assert lost(tmp_path / "out") == 0


@pytest.fixture(scope="module")
def world_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("world") / "log"
    with Server(log, "--world", "--rate", "0.1", "--permanent", "0.05", "--seed", "5") as server:
        yield server


@pytest.mark.parametrize("method", METHODS)
def test_each_method_over_http_with_faults(method: str, world_server: Server, seeds: Path, tmp_path: Path) -> None:
    reader, rng = WorldTeacher().reader, random.Random(5)
    facts = [reader.another(rng, None) for _ in range(12)]
    rows = [{"question": fact.question, "answer": fact.wrong[0]} for fact in facts]  # for `regenerate` to mend
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "doc.txt").write_text(
        "\n\n".join(text for text, _ in zip(documents(make(0), 1), range(12), strict=False))
    )
    shown = [{"question": f"Question: {fact.question}\nAnswer:", "answer": fact.answer} for fact in facts[:4]]
    line = {"stage": "generate", "slice": "any", "budget": 20, "rows": shown}
    (tmp_path / "next.jsonl").write_text(json.dumps(line) + "\n")
    files: dict[str, Any] = {
        "seeds": [str(tmp_path / "rows.jsonl")], "documents": [str(tmp_path / "doc.txt")],
        "weak": str(tmp_path / "next.jsonl"),
    }  # fmt: skip
    given = {name: files[name] for name in [METHODS[method].inputs] if name}
    settings = GenerateConfig.model_validate(
        {"method": method, "limits": {"rows": 6}, "window": 16, "filters": {"similarity": None, "near_duplicate": None},
         "per_input": 2, "licence": "ours", **given}
    )  # fmt: skip
    teacher = Http("m", world_server.url, timeout=1.0, capabilities=("chat", "completions", "json_schema"))
    out = generate(settings, teacher, tmp_path / "out", prepare=prepare_seeds)
    made = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert len(made) == 6
    assert all(set(row["generator"]["requests"]) <= answered(out / "journal.jsonl") for row in made)
    assert lost(out) == 0


def test_killed_runs_come_to_the_same_end(seeds: Path, tmp_path: Path) -> None:
    found = trial(11, 3, seeds, tmp_path, ("--rate", "0.1", "--delay", "0.1"), rows=60)
    assert found["same"]
    assert found["kills"] >= 2
    assert found["repeated_calls"] == 0
    assert found["rows_lost"] == 0
    assert found["most_in_flight"] <= 16


def test_sigint_finishes_what_is_in_flight_and_the_run_resumes(seeds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with Server(tmp_path / "log", "--rate", "0", "--permanent", "0", "--delay", "0.4") as server:
        process = start(server.url, seeds, out)
        while len(answered(out / "journal.jsonl")) < 30:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130, said
        assert "TL-402" in said and "it resumes" in said
        pending = Counter(line[2] for line in server.lines() if line[0] == "ask" and line[2] != "-")
        assert set(pending) == answered(out / "journal.jsonl")  # all that was sent was waited for
        assert (out / "rows.jsonl").is_file() and not (out / "manifest.json").exists()
        run_to_end(start(server.url, seeds, out))
        again = Counter(line[2] for line in server.lines() if line[0] == "ask" and line[2] != "-")
    assert max(again.values()) == 1
    assert read_json(out / "summary.json")["calls"]["in_flight_repeated"] == 0


def test_a_server_that_goes_away_stops_the_run_and_its_return_ends_it(seeds: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    quick = ("--set", "generate.limits.rows=40", "--set", "generate.teacher.timeout=0.3")
    with Server(tmp_path / "log", "--rate", "0", "--permanent", "0", "--delay", "0.1") as server:
        process = start(server.url, seeds, out, *quick)
        while len(answered(out / "journal.jsonl")) < 20:
            assert process.poll() is None
            time.sleep(0.02)
    before = answered(out / "journal.jsonl")
    _, said = process.communicate(timeout=120)
    assert process.returncode == 3, said
    assert "TL-212" in said and "Traceback" not in said
    with Server(tmp_path / "log2", "--rate", "0", "--permanent", "0") as server:
        run_to_end(start(server.url, seeds, out, *quick))
        asked = {line[2] for line in server.lines() if line[0] == "ask"}
    assert not before & asked
    assert read_json(out / "summary.json")["accepted"] == 40


def test_nobody_there_is_said_before_the_start(seeds: Path, tmp_path: Path) -> None:
    process = start("http://127.0.0.1:9/v1", seeds, tmp_path / "out")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 3
    assert "TL-214" in said and "Traceback" not in said


def test_the_key_is_never_shown_or_stored(seeds: Path, tmp_path: Path) -> None:
    secret = "sk-very-secret-0123456789"
    env = os.environ | {"MY_KEY": secret}
    with Server(tmp_path / "log", "--rate", "0.2") as server:
        command = [
            sys.executable, "-m", "tuneloop", "generate", str(seeds), "--out", str(tmp_path / "out"), "--verbose",
            "--rows", "10",
        ]  # fmt: skip
        for item in ("name=m", f"base_url={server.url}", "api_key_env=MY_KEY", "timeout=1.5"):
            command += ["--set", f"generate.teacher.{item}"]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert secret not in done.stdout + done.stderr
    assert all(secret.encode() not in path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert secret not in repr(Http("m", api_key=secret))
    assert "***" in Http("m", api_key=secret)._clean(f"Incorrect API key provided: {secret}")


def test_retry_after_in_seconds_and_as_a_date() -> None:
    from email.utils import formatdate

    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert 8 < (retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) or 0) <= 10
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({}) is None


@pytest.mark.parametrize(
    ("fault", "kind"),
    [("429", "rate_limit"), ("500", "server"), ("stall", "timeout"), ("drip", "timeout"), ("cut", "protocol"),
     ("drop", "transport"), ("shape", "protocol"), ("refuse", "request")],
)  # fmt: skip
def test_each_fault_has_its_kind(fault: str, kind: str, tmp_path: Path) -> None:
    import asyncio

    async def one() -> Any:
        teacher = Http("m", server.url, timeout=0.7)
        try:
            return await teacher.ask(Ask(messages=({"role": "user", "content": "x"},)), "key")
        finally:
            await teacher.close()

    with Server(tmp_path / "log", "--only", fault) as server, pytest.raises(Failed) as caught:
        asyncio.run(one())
    assert caught.value.kind == kind
    assert caught.value.wait == (0.05 if fault == "429" else None)
