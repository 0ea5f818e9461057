"""Checkpoints: safetensors and JSON, hashed, made visible by one rename; a broken one is noticed and passed over.

`checkpoint-N/` holds `state.safetensors` (weights, optimiser, random state) and `state.json` (counters), and where the
weights are in shards one `state-R.safetensors` a process, whose parts `state.json` places by their first row. So any
number of processes loads what any other number wrote. `hashes.json` lists the SHA-256 of every other file.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tuneloop.console import say, warn
from tuneloop.errors import PrerequisiteError, TuneloopError
from tuneloop.store import read_json, sha256_file, write_json
from tuneloop.train.distributed import World

Tensors = dict[str, torch.Tensor]
ALONE = World()


def save(folder: Path, step: int, tensors: Tensors, state: Mapping[str, Any], world: World = ALONE) -> Path:
    """Writes `folder/checkpoint-<step>`: `tensors`, the random state of every process and `state`."""
    target, temporary = folder / f"checkpoint-{step}", folder / f".checkpoint-{step}.tmp"
    randoms = world.gather(_random_state())
    try:
        if world.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        world.wait()
        written = _write(temporary, tensors, randoms, world)
        if world.first:
            hashes = {name: digest for part in written for name, digest in part["hashes"].items()}
            shards = [part["rows"] for part in written] if world.sharded else None
            write_json(temporary / "state.json", {"step": step, "processes": world.size, "shards": shards, **state})
            hashes["state.json"] = sha256_file(temporary / "state.json")
            write_json(temporary / "hashes.json", hashes)
            shutil.rmtree(target, ignore_errors=True)
            os.replace(temporary, target)
        world.wait()
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise _failed(error, target) from error
    except TuneloopError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return target


def _write(folder: Path, tensors: Tensors, randoms: list[Tensors], world: World) -> list[dict[str, Any]]:
    """Each process's file: {hashes: {file: sha256}, rows: {tensor: [first row, rows of the whole]}}, by rank."""
    mine: dict[str, Any] = {"hashes": {}, "rows": {}}
    if world.first or world.sharded:
        local, mine["rows"] = _local_parts(tensors, whole_too=world.first)
        if world.first:
            local |= {f"{key}.{rank}": value for rank, found in enumerate(randoms) for key, value in found.items()}
        name = f"state-{world.rank}.safetensors" if world.sharded else "state.safetensors"
        save_file(local, folder / name)
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
        mine["hashes"][name] = sha256_file(folder / name)
    return world.gather(mine)


def _local_parts(tensors: Tensors, *, whole_too: bool) -> tuple[Tensors, dict[str, list[int]]]:
    """What this process holds, and for shards of a whole where they begin; whole tensors only if asked for."""
    local: Tensors = {}
    rows: dict[str, list[int]] = {}
    for name, tensor in tensors.items():
        if not is_shard(tensor):
            if whole_too:
                local[name] = tensor.detach().cpu().contiguous()
            continue
        part = _local(tensor)
        if part.shape[0]:
            local[name] = part.detach().cpu().contiguous()
            rows[name] = [_first_row(tensor), tensor.shape[0]]
    return local, rows


def is_shard(tensor: torch.Tensor) -> bool:
    return hasattr(tensor, "to_local")


def _local(tensor: Any) -> torch.Tensor:
    part: torch.Tensor = tensor.to_local()
    return part


def _first_row(tensor: Any) -> int:
    """First row of this process's shard: torch splits rows as `torch.chunk` does, ceil(rows / processes) each."""
    mesh, rows = tensor.device_mesh, int(tensor.shape[0])
    return min(rows, -(-rows // int(mesh.size())) * int(mesh.get_local_rank()))


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


def _random_state() -> Tensors:
    found = {"rng.torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        found["rng.cuda"] = torch.cuda.get_rng_state()
    return found


def restore_random(tensors: Tensors, state: Mapping[str, Any], seed: int, world: World = ALONE) -> None:
    """Each process's random state as it was; with another number of processes, a new one from seed, step and rank."""
    if state["processes"] != world.size:
        say(f"{state['processes']} processes wrote this checkpoint, {world.size} go on: random states start anew")
        torch.manual_seed(seed * 1_000_003 + int(state["step"]) * 1009 + world.rank)
        return
    torch.set_rng_state(tensors[f"rng.torch.{world.rank}"])
    if f"rng.cuda.{world.rank}" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors[f"rng.cuda.{world.rank}"])


def found(folder: Path) -> list[Path]:
    """Checkpoints, newest first."""
    return sorted(folder.glob("checkpoint-*"), key=lambda p: -int(p.name.split("-")[1]))


def load_newest(
    folder: Path, like: Mapping[str, torch.Tensor] | None = None, world: World = ALONE
) -> tuple[Tensors, Any] | None:
    """Tensors and state of the newest whole checkpoint, or None; broken ones are passed over aloud."""
    while True:
        paths = found(folder)
        if not paths:
            return None
        loaded = load(paths[0], like, world)
        if loaded is not None:
            return loaded
        if world.first:
            warn(f"{paths[0].name} is broken (a file is missing or its hash differs); using the one before it")
            shutil.rmtree(paths[0])
        world.wait()


def load(
    path: Path, like: Mapping[str, torch.Tensor] | None = None, world: World = ALONE
) -> tuple[Tensors, Any] | None:
    """A checkpoint whose hashes hold, else None. `like`: weights by name; what belongs to a shard comes as a shard."""
    if not world.tell(_whole(path) if world.first else False):
        return None
    state = read_json(path / "state.json")
    with ExitStack() as stack:
        names = [name for name in read_json(path / "hashes.json") if name.endswith(".safetensors")]
        files = {name: stack.enter_context(safe_open(path / name, "pt")) for name in names}
        return _read_all(files, state["shards"], like or {}), state


def _whole(path: Path) -> bool:
    try:
        hashes = read_json(path / "hashes.json")
        return all(sha256_file(path / name) == digest for name, digest in hashes.items())
    except (OSError, TuneloopError):
        return False


def _read_all(
    files: dict[str, Any], shards: list[dict[str, list[int]]] | None, like: Mapping[str, torch.Tensor]
) -> Tensors:
    """Every tensor: whole, or the rows of it that this process holds, whoever wrote them."""
    pieces: dict[str, list[tuple[int, int, Any]]] = {}  # tensor -> (first row, rows of the whole, its slice)
    plain: Tensors = {}
    for name, file in files.items():
        rows = shards[int(name.split("-")[1].split(".")[0])] if shards else {}
        for key in file.keys():  # noqa: SIM118 (not a dictionary)
            part = file.get_slice(key)
            if not part.get_shape():
                plain[key] = file.get_tensor(key)
            else:
                first, whole = rows.get(key, [0, part.get_shape()[0]])
                pieces.setdefault(key, []).append((first, whole, part))
    return plain | {key: _read(found, _owner(key, like)) for key, found in pieces.items()}


def _owner(key: str, like: Mapping[str, torch.Tensor]) -> Any:
    """The sharded weight that a tensor named `<what>.<weight>` belongs to, else None."""
    parts = key.split(".")
    names = (".".join(parts[i:]) for i in range(len(parts)))
    weight = next((like[name] for name in names if name in like), None)
    return weight if weight is not None and is_shard(weight) else None


def _read(found: list[tuple[int, int, Any]], owner: Any) -> torch.Tensor:
    found.sort(key=lambda piece: piece[0])
    rows = found[0][1]
    sharded = owner is not None and [rows, *found[0][2].get_shape()[1:]] == list(owner.shape)
    start = _first_row(owner) if sharded else 0
    stop = start + owner.to_local().shape[0] if sharded else rows
    parts = [
        part[max(0, start - first) : min(part.get_shape()[0], stop - first)]
        for first, _, part in found
        if first < stop and first + part.get_shape()[0] > start
    ]
    local = torch.cat(parts) if parts else torch.empty(0, *found[0][2].get_shape()[1:])
    if not sharded:
        return local
    from torch.distributed.tensor import DTensor

    local = local.to(owner.to_local().device)
    return DTensor.from_local(
        local, owner.device_mesh, owner.placements, run_check=False, shape=owner.shape, stride=owner.stride()
    )


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Removes all but the newest `keep` and the best."""
    for path in found(folder)[keep:]:
        if path.name != f"checkpoint-{best}":
            shutil.rmtree(path)
