"""One process of a run on several devices: `python -m tuneloop.train.worker FOLDER`, started by `launch`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tuneloop import console
from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import Interrupted, TuneloopError
from tuneloop.train.launch import read_job, tell_failure
from tuneloop.train.run import train


def main(folder: Path) -> int:
    """Exit code 0 also after a coded error, which is told to the launcher: starting again would not help."""
    if (folder / "failure.json").exists():
        return 0
    job = read_job(folder)
    console.set_mode(quiet=job["quiet"] or os.environ["RANK"] != "0")
    again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    if again:
        console.say(f"a process was lost; start {again + 1}, from the last checkpoint")
    try:
        train(
            TrainConfig(**job["train"]),
            ModelConfig(**job["model"]),
            Path(job["data"]),
            Path(job["out"]),
            overwrite=job["overwrite"] and not again,
        )
    except TuneloopError as error:
        tell_failure(folder, error)
        return error.exit_code if isinstance(error, Interrupted) else 0
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
