"""Kills a generation run at random moments (kill -9), resumes it, and compares it with a run that was left alone.

Every run talks HTTP to `tests/faulty.py`, whose log says what was really asked. A trial passes when the rows, refusals
and counts are those of the straight run, byte for byte, and no request was sent whose answer stood in the journal.

python benchmarks/generate_kills.py [--kills 100] [--each 5] [--first 0]    trials of so many kills, from this seed on
"""

from __future__ import annotations

import argparse
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONCURRENCY = 16
ROWS = 160


class Server:
    """The faulty server in a process of its own, with a fresh log."""

    def __init__(self, log: Path, *options: str) -> None:
        self.log = log
        command = [sys.executable, str(ROOT / "tests" / "faulty.py"), str(log), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"http://127.0.0.1:{int(self.process.stdout.readline())}/v1"

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()] if self.log.is_file() else []

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exit: object) -> None:
        self.process.kill()
        self.process.wait()


def start(url: str, seeds: Path, out: Path, *more: str) -> subprocess.Popen[str]:
    settings = {
        "method": "evolve", "seeds": str(seeds), "teacher.name": "m", "teacher.base_url": url, "teacher.timeout": 1.5,
        "teacher.concurrency": CONCURRENCY, "limits.rows": ROWS, "window": 64,
    }  # fmt: skip
    flags = [part for name, value in settings.items() for part in ("--set", f"generate.{name}={value}")]
    command = [sys.executable, "-m", "tuneloop", "generate", "--out", str(out), "--quiet", *flags, *more]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def answered(journal: Path) -> set[str]:
    """Request keys whose answer stands in the journal, a torn last line apart."""
    found = set()
    for line in journal.read_bytes().splitlines() if journal.is_file() else []:
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if value.get("state") == "ok" and "call" in value:
            found.add(value["call"])
    return found


def result(out: Path) -> dict[str, Any]:
    summary = json.loads((out / "summary.json").read_text())
    names = ("candidates", "accepted", "dropped", "failed", "stopped", "tokens_in", "tokens_out")
    return {
        "rows": (out / "rows.jsonl").read_text(), "rejected": (out / "rejected.jsonl").read_text(),
        **{name: summary[name] for name in names},
    }  # fmt: skip


def lost(out: Path) -> int:
    """Candidates that are neither accepted, dropped with a reason, nor failed with a kind."""
    fates: dict[int, dict[str, Any]] = {}
    for line in (out / "journal.jsonl").read_text().splitlines():
        value = json.loads(line)
        if "candidate" in value:
            fates[value["candidate"]] = value
    count = json.loads((out / "summary.json").read_text())["candidates"]
    told = [fates.get(i) for i in range(count)]
    return sum(not (fate and (fate.get("rows") or fate.get("reasons") or fate.get("reason"))) for fate in told)


def run_to_end(process: subprocess.Popen[str]) -> None:
    _, said = process.communicate(timeout=300)
    if process.returncode != 0:
        raise SystemExit(f"a run failed with {process.returncode}:\n{said}")


def trial(
    seed: int, kills: int, seeds: Path, work: Path, faults: tuple[str, ...], rows: int = ROWS
) -> dict[str, Any]:  # fmt: skip
    """One straight run and one that is killed `kills` times, each against a server of the same seed."""
    rng = random.Random(seed)
    options, limit = ("--seed", str(seed), *faults), ("--set", f"generate.limits.rows={rows}")
    with Server(work / f"straight-{seed}.log", *options) as server:
        started = time.monotonic()
        run_to_end(start(server.url, seeds, work / f"straight-{seed}", *limit))
        took = time.monotonic() - started
    out = work / f"killed-{seed}"
    done, repeated = 0, 0
    with Server(work / f"killed-{seed}.log", *options) as server:
        while True:
            known, asked_before = answered(out / "journal.jsonl"), len(server.lines())
            process = start(server.url, seeds, out, *limit)
            if done < kills and not _ended(process, out, rng, took, kills):
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
            else:
                run_to_end(process)
            new = [line for line in server.lines()[asked_before:] if line[0] == "ask" and line[2] != "-"]
            repeated += sum(line[2] in known for line in new)
            if (out / "manifest.json").is_file():
                break
        summary = json.loads((out / "summary.json").read_text())
    sessions = _in_flight(out / "journal.jsonl")
    in_flight, most = sum(again for again, _ in sessions), max((left for _, left in sessions[:-1]), default=0)
    return {
        "same": result(out) == result(work / f"straight-{seed}"), "kills": done, "repeated_calls": repeated,
        "in_flight_repeated": in_flight, "most_in_flight": most, "rows_lost": lost(out), "calls": summary["calls"],
    }  # fmt: skip


def _ended(process: subprocess.Popen[str], out: Path, rng: random.Random, took: float, kills: int) -> bool:
    """Waits a random part of the straight run's time beyond the start; True where the run ended before that."""
    size, journal = None, out / "journal.jsonl"
    before = journal.stat().st_size if journal.is_file() else 0
    while size is None or size <= before:  # wait until this session has written something
        if process.poll() is not None:
            return True
        time.sleep(0.02)
        size = journal.stat().st_size if journal.is_file() else 0
    try:
        process.wait(rng.random() * took / kills)
    except subprocess.TimeoutExpired:
        return False
    return True


def _in_flight(journal: Path) -> list[tuple[int, int]]:
    """For each session: calls made again that were in flight when an earlier one ended; calls in flight at its end."""
    open_calls: dict[str, int] = {}
    counts: list[tuple[int, int]] = []
    for line in journal.read_bytes().splitlines():
        try:
            value = json.loads(line)
        except ValueError:
            continue
        if "session" in value:
            counts.append((0, 0))
        elif "call" in value and value["state"] == "pending":
            again = open_calls.get(value["call"], len(counts)) < len(counts)
            counts[-1] = (counts[-1][0] + again, 0)
            open_calls[value["call"]] = len(counts)
        elif "call" in value:
            open_calls.pop(value["call"], None)
        counts[-1] = (counts[-1][0], sum(session == len(counts) for session in open_calls.values()))
    return counts


def campaign(
    kills: int, work: Path, seeds: Path, *, each: int = 5, first: int = 0, faults: tuple[str, ...] = ()
) -> dict[str, Any]:
    found: list[dict[str, Any]] = []
    while sum(one["kills"] for one in found) < kills:
        found.append(
            trial(first + len(found), min(each, kills - sum(one["kills"] for one in found)), seeds, work, faults)
        )
        print(
            f"trial {len(found)}: { {k: v for k, v in found[-1].items() if k != 'calls'} }", file=sys.stderr, flush=True
        )
    total = {
        name: sum(one[name] for one in found) for name in ("kills", "repeated_calls", "in_flight_repeated", "rows_lost")
    }
    return total | {
        "trials": len(found), "same": sum(one["same"] for one in found),
        "most_in_flight": max(one["most_in_flight"] for one in found), "concurrency": CONCURRENCY,
    }  # fmt: skip


def seed_file(work: Path) -> Path:
    """The real 175 seed tasks where they are, as a data folder; else none."""
    source = ROOT.parent / "shared" / "data" / "self_instruct" / "seed_tasks.jsonl.gz"
    command = [sys.executable, "-m", "tuneloop", "data", str(source), "--out", str(work / "seeds"), "--quiet"]
    flags = ("--set", "data.valid_fraction=0", "--set", "data.test_fraction=0")
    subprocess.run([*command, *flags], check=True, capture_output=True)
    return work / "seeds"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--each", type=int, default=5)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        found = campaign(
            given.kills,
            work,
            seed_file(work),
            each=given.each,
            first=given.first,
            faults=("--rate", "0.2", "--delay", "0.2"),
        )
    print(json.dumps(found))


if __name__ == "__main__":
    main()
