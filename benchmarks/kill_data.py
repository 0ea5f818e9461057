"""kill -9 of `tuneloop data` at random moments, then the same command again: the files must be those of a straight run.

    python benchmarks/kill_data.py [--kills 20] [--seed 0]

Real rows (Alpaca, Dolly, GSM8K, lamini_docs) against ARC, two workers. The last line is one object; a campaign, dated
in `benchmarks/results`, of which `tests/fault/test_data_executors.py` holds three kills at named moments.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
SOURCES = ("alpaca", "dolly", "gsm8k/train.jsonl.gz", "lamini_docs")


def command(out: Path) -> list[str]:
    settings = ["eval.tasks=[arc_easy, arc_challenge]", "data.executor=processes", "data.num_workers=2"]
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return [
        sys.executable,
        "-m",
        "tuneloop",
        "data",
        *(str(DATA / s) for s in SOURCES),
        "--out",
        str(out),
        "--quiet",
        *flags,
    ]


def files(out: Path) -> dict[str, str]:
    manifest = json.loads((out / "manifest.json").read_text())
    return {name: digest for name, digest in manifest["files"].items() if name != "run.json"}


def run(out: Path) -> float:
    started = time.perf_counter()
    done = subprocess.run(command(out), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - started


def killed(out: Path, delay: float) -> dict[str, Any]:
    """Starts, kills the whole group after `delay` seconds, and says how far it had come."""
    process = subprocess.Popen(
        command(out), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(delay)
    alive = process.poll() is None
    if alive:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    work = out / ".work"
    stood = "started" if not work.is_dir() else f"{len(list(work.glob('shard-*.arrow')))} shards"
    if (out / "train").is_dir() and work.is_dir():
        stood = "second pass"
    return {"after_s": round(delay, 2), "stood": stood if alive else "done"}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.environ["TUNELOOP_DATA"] = str(DATA)
    os.environ["PYTHONPATH"] = str(ROOT / "src")
    rng = random.Random(given.seed)
    moments = []
    with tempfile.TemporaryDirectory() as folder:
        whole = run(Path(folder) / "straight")
        straight = files(Path(folder) / "straight")
        for number in range(given.kills):
            out = Path(folder) / f"killed-{number}"
            moment = killed(out, rng.uniform(0.3, whole))
            moment["again_s"] = round(run(out), 2)
            moment["same"] = files(out) == straight and not list(out.rglob(".*.tmp")) and not (out / ".work").exists()
            moments.append(moment)
            print(moment, file=sys.stderr, flush=True)
    same = sum(moment["same"] for moment in moments)
    print(json.dumps({"moments": moments}, indent=1))
    print(json.dumps({"kills": given.kills, "same": same, "straight_s": round(whole, 2), "files": len(straight)}))


if __name__ == "__main__":
    main()
