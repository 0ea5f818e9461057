"""Checkpoints: safetensors and JSON, hashed, made visible by one rename; a broken one is noticed and passed over."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tuneloop.console import warn
from tuneloop.errors import PrerequisiteError, TuneloopError
from tuneloop.store import read_json, sha256_file, write_json


def save(folder: Path, step: int, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> Path:
    """Writes `folder/checkpoint-<step>` with optimiser and master weights, random state and counters."""
    target = folder / f"checkpoint-{step}"
    temporary = folder / f".checkpoint-{step}.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        save_file({**tensors, **_random_state()}, temporary / "state.safetensors")
        with open(temporary / "state.safetensors", "rb") as file:
            os.fsync(file.fileno())
        write_json(temporary / "state.json", {"step": step, **state})
        hashes = {name: sha256_file(temporary / name) for name in ("state.safetensors", "state.json")}
        write_json(temporary / "hashes.json", hashes)
        shutil.rmtree(target, ignore_errors=True)
        os.replace(temporary, target)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _failed(error, target) from error
    except TuneloopError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _failed(error: Exception, target: Path) -> Exception:
    """safetensors reports a full disk in words only."""
    if not any(sign in str(error) for sign in ("No space left", "os error 28", "Disk quota")):
        return error
    free = shutil.disk_usage(target.parent).free / 2**20
    return PrerequisiteError(
        205,
        f"the disk is full ({free:.0f} MiB free)",
        where=str(target),
        expected="room for one more checkpoint; nothing half-written was left",
        cure="free some space or lower train.save_total_limit, then run the same command again: it resumes",
    )


def _random_state() -> dict[str, torch.Tensor]:
    found = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["rng.cuda"] = torch.cuda.get_rng_state()
    return found


def restore_random(tensors: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(tensors["rng.torch"])
    if "rng.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["rng.cuda"])


def found(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1]))


def load_newest(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and state of the newest whole checkpoint, or None."""
    for path in found(folder):
        loaded = load(path)
        if loaded is not None:
            return loaded
        warn(f"{path.name} is broken (a file is missing or its hash differs); using the one before it")
        shutil.rmtree(path)
    return None


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """A checkpoint whose hashes hold, else None."""
    try:
        hashes = read_json(path / "hashes.json")
        if any(sha256_file(path / name) != digest for name, digest in hashes.items()):
            return None
        return load_file(path / "state.safetensors"), read_json(path / "state.json")
    except (OSError, SafetensorError, TuneloopError):
        return None


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Removes all but the newest `keep` and the best."""
    for path in found(folder)[keep:]:
        if path.name != f"checkpoint-{best}":
            shutil.rmtree(path)
