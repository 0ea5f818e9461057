"""Generated rows for the measurements of the data stage: sizes like Alpaca's, with repeats, near-repeats and bad rows.

python benchmarks/data_rows.py FILE N
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

VERBS = ("Explain", "Describe", "List", "Compare", "Summarise", "Translate", "Outline", "Discuss", "Name", "Sketch")


def words(seed: int = 0, n: int = 20_000) -> list[str]:
    """Made-up words, so that rows are as different from one another as real ones."""
    rng = random.Random(seed)
    syllables = [c + v for c in "bcdfghjklmnprstvwz" for v in ("a", "e", "i", "o", "u", "ai", "en", "or")]
    return ["".join(rng.choice(syllables) for _ in range(rng.randint(1, 4))) for _ in range(n)]


def write_rows(path: Path, count: int, seed: int = 0) -> dict[str, int]:
    """JSON lines; 1 % are repeats, 1 % near-repeats with the same answer, 0.1 % have no answer. Returns the counts."""
    rng = random.Random(seed)
    held = words(seed)
    counts = {"rows": count, "repeats": 0, "near": 0, "bad": 0}
    recent: list[dict[str, str]] = []
    with open(path, "w", encoding="utf-8") as file:
        for _ in range(count):
            draw = rng.random()
            if draw < 0.01 and recent:
                row = rng.choice(recent)
                counts["repeats"] += 1
            elif draw < 0.02 and recent:
                row = dict(rng.choice(recent))
                row["instruction"] = "Please " + row["instruction"][0].lower() + row["instruction"][1:]
                counts["near"] += 1
            else:
                asked = " ".join(rng.choices(held, k=rng.randint(10, 40)))
                answer = " ".join(rng.choices(held, k=rng.randint(5, 150)))
                row = {"instruction": f"{rng.choice(VERBS)} {asked}.", "input": "", "output": f"{answer}."}
                if draw > 0.999:
                    row["output"] = ""
                    counts["bad"] += 1
                elif len(row["instruction"]) > 100:
                    recent.append(row)
                    recent = recent[-1000:]
            file.write(json.dumps(row) + "\n")
    return counts


if __name__ == "__main__":
    print(json.dumps(write_rows(Path(sys.argv[1]), int(sys.argv[2]))))
