"""What a row must pass that needs no model: rules, verifiers, the sandbox; and the figures on diversity."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import sys
import tempfile
import time
from pathlib import Path

import pytest

from tuneloop.config.generate import FilterConfig
from tuneloop.generate import diversity, sandbox
from tuneloop.generate.rules import check
from tuneloop.generate.verify import bad_json, result, run_answer, span_in, verify, wrong_sum
from tuneloop.records import Example

GOOD = ("Name two rivers of France.", "The Seine and the Loire.")


def row(prompt: str, answer: str) -> Example:
    return Example(messages=[{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}])


@pytest.mark.parametrize(
    ("prompt", "answer", "reason"),
    [
        (*GOOD, None),
        ("Why?", GOOD[1], "length"),
        ("word " * 151, GOOD[1], "length"),
        (GOOD[0], "word " * 1001, "length"),
        (", and then what came?", GOOD[1], "format"),
        ("Fill in {{name}} for me please", GOOD[1], "format"),
        (GOOD[0], "Dear [Insert name], hello.", "format"),
        (GOOD[0], "The Seine.\n\nInstruction: Name a mountain.", "format"),
        ("Describe what is in the image below", GOOD[1], "media"),
        (GOOD[0], "See https://example.com/rivers", "invented_web"),
        ("What is at https://example.com/rivers today?", "See https://example.com/rivers", None),
        (GOOD[0], "N/A", "empty"),
        (GOOD[0], "Name two  rivers of France.", "echo"),
        (GOOD[0], "I'm sorry, but I cannot help with that.", "refusal"),
        (GOOD[0], "As an AI language model, I have no rivers.", "refusal"),
        (GOOD[0], "line one\nline one\nline one\nline two", "repetition"),
        (GOOD[0], "I think that the river is the river and so " * 8, "repetition"),
        ("«Quelle est la capitale?» demande-t-il", GOOD[1], None),
    ],
)
def test_rules_name_what_is_wrong(prompt: str, answer: str, reason: str | None) -> None:
    found = check(row(prompt, answer), FilterConfig(), refusals=True)
    assert (found and found[0]) == reason


def test_language_by_script() -> None:
    settings = FilterConfig(script="latin")
    found = check(row(GOOD[0], "Сена и Луара, две реки."), settings, refusals=True)
    assert found is not None and found[0] == "script"
    assert check(row(*GOOD), settings, refusals=True) is None


def test_language_of_each_side_as_the_data_stage_tells_it() -> None:
    settings = FilterConfig(languages=["en"])
    asked = "Please name three large rivers of France and say where each of them ends."
    german = "Die Seine, die Loire und die Rhone sind die drei großen Flüsse, die durch Frankreich fließen."
    english = "The Seine, the Loire and the Rhone are the three large rivers that flow through the country."
    assert check(row(asked, german), settings, refusals=True) == ("language", "de")
    assert check(row(german, english), settings, refusals=True) == ("language", "de")
    assert check(row(asked, english), settings, refusals=True) is None
    assert check(row("Name two rivers.", "Seine und Loire."), settings, refusals=True) is None  # too short to tell


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("She has 3 + 4 = 7 apples.", True),
        ("She has 3 + 4 = 8 apples.", False),
        ("48/2 = <<48/2=24>>24 clips and 48+24 = 72", True),
        ("That is $1,200 * 3 = $3,600.", True),
        ("10 / 3 = 3.33", True),
        ("10 / 3 = 3.34", False),
        ("2 x (3 + 4) = 15", False),
        ("from 1990-2000 = a decade", True),
        ("9 ** 9 ** 9 = 3", True),
    ],
)
def test_sums(text: str, right: bool) -> None:
    assert (wrong_sum(text) is None) == right


def test_the_result_must_be_that_of_the_seed() -> None:
    seed = row("How many?", "3 + 4 = 7\n#### 7")
    assert asyncio.run(verify("It is 2 + 5 = 7.", seed, ["arithmetic"])) is None
    assert "not 9" in (asyncio.run(verify("It is 9.", seed, ["arithmetic"])) or "")


def test_runs_of_digits_are_no_number() -> None:
    assert result("1" * 5000) is None
    assert result("it is " + "9" * 300) == int("9" * 300)
    assert (wrong_sum("1 + 1 = " + "2" * 5000) or "").startswith("1 + 1 is 2, not 222")
    assert "e+190, not 1" in (wrong_sum("9" * 95 + " * " + "9" * 95 + " = 1") or "")
    assert wrong_sum("10 / 4 = 4") == "10 / 4 is 2.5, not 4"
    seed = row("How many?", "3 + 4 = 7\n#### 7")
    assert "missing" in (asyncio.run(verify("It is " + "9" * 400, seed, ["arithmetic"])) or "")
    assert "e+300" in (asyncio.run(verify("It is " + "9" * 300, seed, ["arithmetic"])) or "")


def test_json_and_quotes() -> None:
    assert bad_json('Here:\n```json\n{"a": [1, 2]}\n```') is None
    assert bad_json('{"a": 1') is not None
    document = "The mill\n  stands on the Arn."
    assert span_in('"mill stands on"', document) == (4, 20)
    assert span_in("mill stood on", document) is None
    assert span_in("  ", document) is None


def fenced(code: str) -> str:
    return f"```python\n{code}\n```"


def test_code_runs_in_a_fence(tmp_path: Path) -> None:
    victim = tmp_path / "precious.txt"
    victim.write_text("x")
    victim.chmod(0o600)
    cases = {
        "assert sum([1, 2]) == 3": None,
        "assert 1 == 2": "AssertionError",
        f"open({str(victim)!r}, 'w')": "FileNotFoundError",
        f"open({str(victim)!r}).read()": "FileNotFoundError",
        f"import os; os.remove({str(victim)!r})": "FileNotFoundError",
        f"import os; os.truncate({str(victim)!r}, 0)": "FileNotFoundError",
        f"import os; os.chmod({str(victim)!r}, 0o777)": "FileNotFoundError",
        f"import os; os.chmod({sys.executable!r}, 0o777)": "Error",
        "import os; os.chmod('/dev/null', 0o777)": "Error",
        "import os; os.fchmod(1, 0o777)": "Error",
        "import os; os.mkdir('/new')": "Error",
        "import socket; socket.create_connection(('127.0.0.1', 22), 2)": "Error",
        "open('big', 'w').write('x' * (1 << 22))": "File too large",
        "for i in range(64): open(f'{i}', 'w').write('x' * (1 << 19))": "No space left",
        "import os\nwhile os.fork(): pass\nos.pause() if hasattr(os, 'pause') else input()": "Error",
        "x = ' ' * (1 << 31)": "MemoryError",
        "import os; assert 'HOME' not in os.environ and 'PYTHONPATH' not in os.environ": None,
        "import subprocess as s; s.run(['ls', '/'], stdout=s.DEVNULL, check=True)": None,
    }
    for code, said in cases.items():
        found = asyncio.run(run_answer(fenced(code)))
        assert (found is None) if said is None else (said in (found or "")), (code, found)
    assert victim.read_text() == "x" and victim.stat().st_mode & 0o777 == 0o600
    assert asyncio.run(run_answer("no code")) == "no code block"


def test_code_reaches_no_socket_of_the_user() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as server:
        server.bind(path := f"{folder}/s")
        server.listen()
        code = f"import socket\nwith socket.socket(socket.AF_UNIX) as s: s.connect({path!r})"
        exec(code)  # the user can
        assert "FileNotFoundError" in (asyncio.run(run_answer(fenced(code))) or "")


def test_code_cannot_outlive_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.need_sandbox()
    monkeypatch.setattr(sandbox, "SECONDS", 1)
    code = """
import ctypes, os, time
prctl = ctypes.CDLL(None).prctl
os.setsid()
prctl(1, 0, 0, 0, 0)  # no signal when the parent ends
prctl(15, b"outliver", 0, 0, 0)
time.sleep(60)
"""
    assert "still running" in (asyncio.run(run_answer(fenced(code))) or "")
    for _ in range(50):  # the kernel takes a namespace down a moment after its first process
        names = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            with contextlib.suppress(OSError):
                names.append(path.read_text().strip())
        if "outliver" not in names:
            break
        time.sleep(0.1)
    assert names and "outliver" not in names


def test_endless_code_ends() -> None:
    assert asyncio.run(run_answer(fenced("while True: pass"))) is not None


def test_without_a_fence_code_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.need_sandbox.cache_clear()
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    with pytest.raises(sandbox.PrerequisiteError, match="TL-213"):
        asyncio.run(run_answer(fenced("pass")))
    sandbox.need_sandbox.cache_clear()


@pytest.mark.parametrize("name", ["truncate", "chmod", "socket", "space"])
def test_the_trial_finds_a_hole(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt by itself succeeds where nothing stands in its way, and then code is refused."""
    only = sandbox.TRIAL.replace("attempts.items()", f"[({name!r}, attempts[{name!r}])]")
    monkeypatch.setattr(sandbox, "TRIAL", only)
    assert sandbox._trial() == ""
    monkeypatch.setattr(sandbox, "_command", lambda home: ["env", "-C", home, sys.executable, "-I", "code.py"])
    sandbox.need_sandbox.cache_clear()
    with pytest.raises(sandbox.PrerequisiteError, match=f"TL-213.*the fence has a hole: {name}"):
        sandbox.need_sandbox()
    sandbox.need_sandbox.cache_clear()


def test_diversity_tells_varied_from_repeated() -> None:
    rng = random.Random(1)
    nouns = [
        "tea",
        "rain",
        "law",
        "iron",
        "jazz",
        "coffee",
        "snow",
        "custom",
        "steel",
        "taste",
        "price",
        "age",
        "river",
        "stone",
        "paper",
        "wheel",
    ]
    varied = ["Explain " + " ".join(rng.sample(nouns, 7)) for _ in range(60)]
    repeated = ["Explain how tea and coffee differ in taste"] * 60
    one, two = diversity.measures(varied, 60, 0), diversity.measures(repeated, 60, 0)
    assert one["self_bleu"] < two["self_bleu"] == 1.0
    assert one["entropy_2"] > two["entropy_2"]
    assert one["distinct_2"] > two["distinct_2"]
    found = diversity.report(varied, repeated)
    assert found["topics"] and sum(topic["seeds"] for topic in found["topics"]) == 60
    assert one["openings"][0] == ("explain", 60)
