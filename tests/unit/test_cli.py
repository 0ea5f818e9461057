"""The command line as a user meets it: a real process, its exit code, and no traceback for a user's mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def tuneloop(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("TUNELOOP")} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "tuneloop", *arguments]
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def _rows(path: Path, *rows: str) -> None:
    path.write_text("".join(row + "\n" for row in rows))


@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (["run", "nowhere.yaml"], 2, "TL-101"),
        (["data", "./nowhere.jsonl"], 2, "TL-110"),
        (["data", "--set", "data.sead=1", "x.jsonl"], 2, "did you mean 'seed'"),
        (["train"], 2, "--data"),
        (["train", "--data", "."], 2, "TL-115"),
        (["analyze", "."], 2, "TL-115"),
        (["power"], 2, "TL-158"),
        (["power", "--points", "30", "--flips", "0.1"], 2, "needs at least 30 %"),
        (["scores", "table", "."], 2, "TL-115"),
        (["scores", "diff", ".", "--against", "."], 2, "TL-115"),
        (["compare", "--set", "compare.contenders=[few_shots]"], 2, "few_shot"),
        (["eval", "--set", "eval.metrics=[judge]"], 2, "eval.judge.model"),
        (["nonsense"], 2, "No such command"),
    ],
)
def test_mistakes_have_a_code_and_no_traceback(tmp_path: Path, arguments: list[str], exit_code: int, said: str) -> None:
    done = tuneloop(*arguments, cwd=tmp_path)
    assert done.returncode == exit_code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_data_from_a_file_to_a_folder(tmp_path: Path) -> None:
    _rows(tmp_path / "a.jsonl", '{"question": "Who?", "answer": "Ada"}', '{"question": "Who"', '{"question": "Why?"}')
    done = tuneloop("data", "a.jsonl", "--out", "d", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["profile"]["rows_in"] == 3
    assert answer["profile"]["rejected"] == 2
    assert "a.jsonl:2" in done.stderr
    again = tuneloop("data", "a.jsonl", "--out", "d", cwd=tmp_path)
    assert again.returncode == 0
    assert "already" in again.stderr


def test_nothing_kept_is_exit_4_and_ranks_the_reasons(tmp_path: Path) -> None:
    _rows(tmp_path / "a.jsonl", '{"foo": 1}', '{"foo": 2}', "{")
    done = tuneloop("data", "a.jsonl", "--out", "d", "--json", cwd=tmp_path)
    assert done.returncode == 4, done.stderr
    assert "2 unknown_format" in done.stderr
    assert json.loads(done.stdout)["error"]["exit"] == 4
    assert not (tmp_path / "d" / "manifest.json").exists()


def test_another_run_in_the_folder_is_refused(tmp_path: Path) -> None:
    _rows(tmp_path / "a.jsonl", *[json.dumps({"question": f"{i}?", "answer": "x"}) for i in range(30)])
    assert tuneloop("data", "a.jsonl", "--out", "d", cwd=tmp_path).returncode == 0
    refused = tuneloop("data", "a.jsonl", "--out", "d", "--set", "data.seed=5", cwd=tmp_path)
    assert refused.returncode == 2
    assert "TL-113" in refused.stderr
    again = tuneloop("data", "a.jsonl", "--out", "d", "--set", "data.seed=5", "--overwrite", cwd=tmp_path)
    assert again.returncode == 0


def test_unknown_and_pickled_models(tmp_path: Path) -> None:
    _rows(tmp_path / "a.jsonl", *[json.dumps({"question": f"{i}?", "answer": "x"}) for i in range(30)])
    assert tuneloop("data", "a.jsonl", "--out", "d", cwd=tmp_path).returncode == 0
    unknown = tuneloop("train", "--data", "d", "--model", "nobody/nothing", "--out", "m", cwd=tmp_path)
    assert unknown.returncode == 3, unknown.stderr
    assert "Traceback" not in unknown.stderr
    (tmp_path / "pickled").mkdir()
    (tmp_path / "pickled" / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pickled" / "pytorch_model.bin").write_bytes(b"x")
    pickled = tuneloop("train", "--data", "d", "--model", "./pickled", "--out", "m2", cwd=tmp_path)
    assert pickled.returncode == 3, pickled.stderr
    assert "Traceback" not in pickled.stderr
    assert not (tmp_path / "m2" / "manifest.json").exists()


def test_dry_run_prints_the_config_and_starts_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("model: world\ndata: {source: [a.jsonl]}\n")
    done = tuneloop("run", "c.yaml", "--dry-run", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["source"] == ["a.jsonl"]
    assert [p.name for p in tmp_path.iterdir()] == ["c.yaml"]


def test_power_plans(tmp_path: Path) -> None:
    done = tuneloop("power", "--points", "2", "--flips", "0.1", "--rows", "500", "--json", cwd=tmp_path)
    found = json.loads(done.stdout)
    assert found["rows_paired"] == 2052 and found["rows_unpaired"] == 9812
    assert 0 < found["power_here"] < 0.8 and found["detectable"] == pytest.approx(0.0396, abs=1e-3)
