"""A model folder out of a checkpoint of training, so that what was kept along the way can be scored as any model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tuneloop.errors import DataError

WEIGHTS = ("adapter_model.safetensors", "model.safetensors")
TRAINED = "master."  # before the name of every trained weight in a checkpoint, in float32


def unpack(model: Path, checkpoint: Path, out: Path) -> Path:
    """Writes the model of `checkpoint` into `out`: the finished folder's files with the checkpoint's weights.

    Weights that were not trained are those of the finished model. Raises DataError 382 where the checkpoint is in
    shards of several processes or the finished weights are not in one file.
    """
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    name = next((n for n in WEIGHTS if (model / n).is_file()), "")
    if not name or not (checkpoint / "state.safetensors").is_file():
        raise DataError(
            382, "this checkpoint cannot be read as a model", where=str(checkpoint),
            expected=f"state.safetensors beside a finished {' or '.join(WEIGHTS)}",
            cure="set analyze.checkpoints=false",
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    for path in model.iterdir():
        if path.is_file() and path.suffix in (".json", ".jinja") and path.name not in ("manifest.json", "run.json"):
            shutil.copy2(path, out / path.name)
    weights: dict[str, Any] = load_file(model / name)
    with safe_open(checkpoint / "state.safetensors", "pt") as state:
        # PEFT leaves the name of the adapter out of the file.
        known = {key.removeprefix(TRAINED).replace(".default.", "."): key for key in state.keys()}  # noqa: SIM118
        for key, value in weights.items():
            if key in known:
                weights[key] = state.get_tensor(known[key]).to(value.dtype).contiguous()
    save_file(weights, out / name, metadata={"format": "pt"})
    return out
