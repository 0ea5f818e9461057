"""Times `tuneloop --help` as a user starts it (a fresh process each) and prints one JSON object as its last line."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime

LIMIT_SECONDS = 0.3


def seconds_of_help() -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "tuneloop", "--help"], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 starts instead of 15")
    repeats = 3 if parser.parse_args().quick else 15
    seconds_of_help()  # fills the file cache and writes bytecode; a user's second call is what is measured
    times = [seconds_of_help() for _ in range(repeats)]
    print(
        json.dumps(
            {
                "benchmark": "help_time",
                "date": datetime.now(UTC).isoformat(timespec="seconds"),
                "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
                "python": platform.python_version(),
                "repeats": repeats,
                "median_seconds": round(statistics.median(times), 4),
                "min_seconds": round(min(times), 4),
                "max_seconds": round(max(times), 4),
                "limit_seconds": LIMIT_SECONDS,
                "within_limit": statistics.median(times) < LIMIT_SECONDS,
            }
        )
    )


if __name__ == "__main__":
    main()
