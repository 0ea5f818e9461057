"""How far apart the same step comes out under every layout, and the same run after a kill: measured, not promised.

    python benchmarks/equivalence.py            about five minutes on two cores
    python benchmarks/equivalence.py --quick    one size, one resumed run

Gradients: one step of 16 real examples (Alpaca and GSM8K) on stories260K in float32, as passes of a size x layout x
processes (16 examples in passes of 4 are an accumulation of 4, or of 2 on two processes). Compared with the plainest
way, one padded example a pass in one process: relative difference of the loss, and of the whole gradient in L2. Resume:
whole runs of a tiny model, killed by SIGKILL at a random step and started again, twice, against the straight run:
whether the final weights are the same bytes. Prints one JSON object last.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import itertools
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
SHARED = Path(os.environ.get("TUNELOOP_SHARED", HERE.parent.parent / "shared"))
EXAMPLES, BOUND = 16, 1e-5
PROCESSES = ("1 process", "2 processes", "2 processes, shards")
# Processes, layout, and examples a pass (first-fit: tokens a pass).
Cell = tuple[str, str, int]


def gradient(cell: Cell, data: Path, rank: int) -> tuple[float, Any]:
    """Loss and flat gradient of one step, made by the code that trains."""
    import torch

    from tuneloop.config import TrainConfig
    from tuneloop.models import load_model, load_tokenizer
    from tuneloop.prompts import apply_template
    from tuneloop.train.attention import NAME, register
    from tuneloop.train.distributed import World, shard
    from tuneloop.train.items import load_items
    from tuneloop.train.objectives import build
    from tuneloop.train.optim import Optimizer
    from tuneloop.train.state import Trainer
    from tuneloop.train.step import backward

    how, layout, size = cell
    packing = layout != "padded"
    base = str(SHARED / "models" / "stories260K")
    tokenizer = load_tokenizer(base)
    apply_template(tokenizer, "plain")
    items = load_items(data, "train", tokenizer, 512, None)[:EXAMPLES]
    bound = {"pass_tokens" if layout == "first-fit" else "per_device_train_batch_size": size}
    config = TrainConfig.model_validate({"method": "full", "learning_rate": 1e-3, **bound})
    register()
    network = load_model(base, dtype="float32", device="cpu").train()
    network.set_attn_implementation(NAME if packing else "sdpa")
    world = World() if how == "1 process" else World(rank, 2, rank, "shards" in how)
    if world.sharded:
        network = shard(network, world, torch.float32)
    t = Trainer(network, config, items, [], Path("."), 1e-3, packing, 0, build(config), world)
    optimizer = Optimizer(network, config, 1e-3)
    outcomes = backward(t, optimizer, items)
    world.add_gradients(optimizer.masters)
    loss = world.total([float(sum(o.total for _, o in outcomes))])[0] / t.objective.mass(items)
    grads = [m.grad.full_tensor() if world.sharded else m.grad for m in optimizer.masters]
    return loss, torch.cat([g.flatten() for g in grads])


def one_rank(rank: int, cells: list[Cell], data: Path, out: Path) -> None:
    """The cells of two processes, one after the other; the first process keeps what came out."""
    import torch

    from tuneloop import console

    console.set_mode(quiet=True)
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{out}.meet", rank=rank, world_size=2)
    found = [gradient(cell, data, rank) for cell in cells]
    if rank == 0:
        torch.save(found, out)
    torch.distributed.destroy_process_group()


def gradients(sizes: list[int], tokens: list[int], top: Path) -> list[dict[str, Any]]:
    import torch
    from plan_memory import data

    rows = data(top / "rows")
    plainest = gradient(("1 process", "padded", 1), rows, 0)
    cells = list(itertools.product(PROCESSES, ("padded", "packed"), sizes))
    cells += itertools.product(PROCESSES, ("first-fit",), tokens)
    many = [cell for cell in cells if cell[0] != "1 process"]
    torch.multiprocessing.spawn(one_rank, (many, rows, top / "found.pt"), nprocs=2)
    found = dict(zip(many, torch.load(top / "found.pt"), strict=True))
    lines = []
    for cell in cells:
        loss, flat = found[cell] if cell in found else gradient(cell, rows, 0)
        lines.append(
            {
                "processes": cell[0],
                "layout": cell[1],
                "pass": f"{cell[2]} {'tokens' if cell[1] == 'first-fit' else 'examples'}",
                "loss_difference": abs(loss - plainest[0]) / plainest[0],
                "gradient_difference": float((flat - plainest[1]).norm() / plainest[1].norm()),
            }
        )
    return lines


def train(top: Path, out: str, settings: dict[str, Any], kill_after: int | None = None) -> bool:
    """The `train` verb in a process group of its own, killed when its log has that many lines; whether it ended."""
    sets = [word for key, value in settings.items() for word in ("--set", f"train.{key}={value}")]
    command = [sys.executable, "-m", "tuneloop", "train", "--model", str(top / "base"), "--data", str(top / "data")]
    process = subprocess.Popen(
        [*command, "--out", str(top / out), *sets, "--quiet"], start_new_session=True, stderr=subprocess.PIPE
    )
    log = top / out / "log.jsonl"
    while process.poll() is None:
        if kill_after is not None and log.is_file() and len(log.read_bytes().splitlines()) >= kill_after:
            os.killpg(process.pid, signal.SIGKILL)
            # Workers of two processes have sessions of their own; they stop when what started them is gone, or by hand.
            stop_workers(top / out)
            process.wait()
            return False
        time.sleep(0.005)
    if process.returncode:
        raise SystemExit(process.stderr.read().decode() if process.stderr else "failed")
    return True


def stop_workers(out: Path) -> None:
    import psutil

    for p in psutil.process_iter(["cmdline"]):
        line = p.info["cmdline"] or []
        job = Path(line[-1], "job.json") if "tuneloop.train.worker" in line else None
        if job and job.is_file() and str(out) in job.read_text():
            p.kill()


def resumed(settings: dict[str, Any], top: Path, chance: random.Random) -> dict[str, Any]:
    name = f"{settings['devices']}{settings['packing']}{settings['gradient_accumulation_steps']}"
    train(top, f"straight-{name}", settings)
    kills = sorted(chance.sample(range(1, int(settings["max_steps"])), 2))
    for step in kills:
        train(top, f"cut-{name}", settings, step)
    train(top, f"cut-{name}", settings)
    sums = [
        hashlib.sha256((top / f"{way}-{name}" / "model.safetensors").read_bytes()).hexdigest()
        for way in ("straight", "cut")
    ]
    return {
        "processes": settings["devices"],
        "layout": "packed" if settings["packing"] == "true" else "padded",
        "accumulation": settings["gradient_accumulation_steps"],
        "killed_at": kills,
        "same_bytes": sums[0] == sums[1],
    }


def resumes(top: Path, found: list[dict[str, Any]], *, quick: bool) -> Iterator[None]:
    """Adds what `found` lacks, one cell after the other."""
    from tests.recipe.tiny import tiny_data, tiny_examples, tiny_folder

    tiny_folder(top / "base")
    tiny_data(top / "data", tiny_examples(46))
    fixed = {"method": "full", "learning_rate": 0.003, "save_steps": 4, "eval_steps": 7, "max_steps": 60}
    cells = list(itertools.product((1, 2), ("true", "false"), (1, 2)))[: 1 if quick else None]
    for number, (devices, packing, passes) in list(enumerate(cells))[len(found) :]:
        more = {"devices": devices, "packing": packing, "gradient_accumulation_steps": passes}
        found.append(resumed({**fixed, "per_device_train_batch_size": 8 // passes, **more}, top, random.Random(number)))
        print(json.dumps(found[-1]), file=sys.stderr, flush=True)
        yield


def table(result: dict[str, Any]) -> str:
    lines = [
        "| processes | layout | at most in a pass | loss | gradient (L2) |",
        "|---|---|---|---|---|",
    ]
    for row in result["gradients"]:
        lines.append(
            f"| {row['processes']} | {row['layout']} | {row['pass']} "
            f"| {row['loss_difference']:.1e} | {row['gradient_difference']:.1e} |"
        )
    lines += ["", "| processes | layout | accumulation | killed at steps | final weights |", "|---|---|---|---|---|"]
    for row in result["resumes"]:
        lines.append(
            f"| {row['processes']} | {row['layout']} | {row['accumulation']} "
            f"| {', '.join(map(str, row['killed_at']))} | {'same bytes' if row['same_bytes'] else 'DIFFERENT'} |"
        )
    return "\n".join(lines)


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--quick", action="store_true")
    p.add_argument("--into", type=Path, help="what is done is kept here, and not done again")
    a = p.parse_args()
    import torch

    from tuneloop import console

    console.set_mode(quiet=True)
    torch.set_num_threads(1)
    into = a.into or (None if a.quick else HERE / "results" / f"{datetime.date.today()}-equivalence.json")
    result: dict[str, Any] = json.loads(into.read_text()) if a.into and a.into.is_file() else {}
    result |= {
        "date": str(datetime.date.today()),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "command": "python benchmarks/equivalence.py",
    }

    def keep() -> None:
        if into:
            into.write_text(json.dumps(result, indent=1) + "\n")

    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        if "gradients" not in result:
            sizes = ([4], [512]) if a.quick else ([1, 2, 4, 8], [512, 1024])
            result |= {"gradients": gradients(*sizes, top), "resumes": []}
            keep()
        for _ in resumes(top, result["resumes"], quick=a.quick):
            keep()
    result["worst_gradient_difference"] = max(row["gradient_difference"] for row in result["gradients"])
    result["worst_loss_difference"] = max(row["loss_difference"] for row in result["gradients"])
    result["all_resumed_same"] = all(row["same_bytes"] for row in result["resumes"])
    print(table(result))
    keep()
    print(json.dumps(result))
    sys.exit(0 if result["worst_gradient_difference"] < BOUND and result["all_resumed_same"] else 1)


if __name__ == "__main__":
    main()
