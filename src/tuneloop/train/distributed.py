"""The processes of one run: who this one is, what it takes of a step, and the few things they tell one another.

A step holds the same examples for any number of processes: each takes every n-th by length, gradients are summed, and
the mass they are divided by is that of the whole step, so neither the loss nor its gradient depends on the number.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch

from tuneloop.config import TrainConfig
from tuneloop.console import say
from tuneloop.errors import PrerequisiteError, TuneloopError, UsageError
from tuneloop.store import Run, open_run

T = TypeVar("T")
BUCKET = 2**23  # numbers summed in one call: large enough for bandwidth, small enough to stay in a few buffers
SHARDABLE = ("adamw", "adamw_torch", "adamw_torch_fused")  # updates each weight from its own numbers alone


@dataclass(frozen=True, slots=True)
class World:
    """`size` processes, of which this is `rank`; `sharded` when each holds a part of the weights (FSDP2)."""

    rank: int = 0
    size: int = 1
    local: int = 0  # rank on this machine, which is the number of its device
    sharded: bool = False

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, items: Sequence[T]) -> list[T]:
        """What this process takes of a sequence in which neighbours cost about the same."""
        return list(items[self.rank :: self.size])

    def total(self, values: Sequence[float]) -> list[float]:
        """Sums over all processes, place by place, in float64."""
        if self.size == 1:
            return list(values)
        found = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(found)
        return [float(v) for v in found]

    def highest(self, value: int) -> int:
        if self.size == 1:
            return value
        found = torch.tensor(value)
        torch.distributed.all_reduce(found, torch.distributed.ReduceOp.MAX)
        return int(found)

    def tell(self, value: T) -> T:
        """The first process's value, in every process."""
        if self.size == 1:
            return value
        box = [value]
        torch.distributed.broadcast_object_list(box, src=0, device=torch.device("cpu"))
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every process's value, in every process, by rank."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        if self.size > 1:
            torch.distributed.barrier()

    def add_gradients(self, weights: Sequence[torch.Tensor]) -> None:
        """Sums the gradients of whole copies over all processes; shards were summed by the backward pass."""
        if self.size == 1 or self.sharded:
            return
        for weight in weights:
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
        grads = [weight.grad for weight in weights if weight.grad is not None]
        for bucket in _buckets(grads):
            flat = torch.cat([grad.reshape(-1) for grad in bucket])
            torch.distributed.all_reduce(flat)
            for grad, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                grad.copy_(part.view_as(grad))


def _buckets(grads: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    bucket: list[torch.Tensor] = []
    for grad in grads:
        if bucket and (bucket[0].dtype != grad.dtype or sum(g.numel() for g in bucket) + grad.numel() > BUCKET):
            yield bucket
            bucket = []
        bucket.append(grad)
    if bucket:
        yield bucket


def started_by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ and "RANK" in os.environ


@contextmanager
def joined(config: TrainConfig, device: str) -> Iterator[World]:
    """The world that torchrun started this process in; alone otherwise."""
    if not started_by_torchrun():
        yield World()
        return
    cuda = device == "cuda"
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    if cuda:
        torch.cuda.set_device(local)
    # On a busy machine gloo now and then loses a connection while the processes meet, and all wait: that ends soon, and
    # the agent starts them again. Once they have met, the first one may take long to save what the others wait for.
    torch.distributed.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=timedelta(minutes=2))
    torch.distributed.distributed_c10d._set_pg_timeout(timedelta(minutes=30))
    try:
        yield World(rank, size, local, config.parallel == "fsdp")
    finally:
        torch.distributed.destroy_process_group()


@contextmanager
def opened(world: World, out: Path, **settings: Any) -> Iterator[Run]:
    """The run folder, opened and locked by the first process; the others learn its state."""
    with ExitStack() as stack:
        run = None
        if world.first:
            try:
                run = stack.enter_context(open_run(out, **settings))
            except TuneloopError:
                world.tell("failed")
                raise
        state = world.tell(run.state if run else "")
        if state == "failed":
            raise SystemExit(0)  # the first process says why
        yield run or Run(out, {}, state)


def devices_there(device: str) -> int:
    if device == "cuda":
        return torch.cuda.device_count()
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def check_devices(config: TrainConfig, device: str) -> None:
    """Raises PrerequisiteError 220 for more processes than devices, UsageError 244 as `check_together`."""
    there = devices_there(device)
    if config.devices > there:
        raise PrerequisiteError(
            220,
            f"{config.devices} devices asked for, {there} there",
            where="train.devices",
            expected=f"at most {there} ({'GPUs' if device == 'cuda' else 'processor cores'} of this machine)",
            cure=f"--devices {there}, or torchrun over several machines",
        )
    check_together(config, config.devices)


def check_together(config: TrainConfig, processes: int) -> None:
    """Raises UsageError 244 for an update that several processes cannot make alike, or not of shards."""
    if config.bf16_update == "stochastic" and processes > 1:
        raise UsageError(
            244,
            "every process would round its copy of the weights by its own chance",
            where="train.bf16_update",
            cure="--set train.bf16_update=master, or --devices 1",
        )
    if config.parallel == "fsdp" and config.objective == "reward" and processes > 1:
        raise UsageError(
            244,
            "a reward model's head is read beside the decoder, and needs whole weights",
            where="train.parallel",
            cure="--set train.parallel=ddp",
        )
    optim = str(getattr(config, "optim", SHARDABLE[0]))
    if config.parallel == "fsdp" and optim not in SHARDABLE:
        raise UsageError(
            244,
            f"the optimiser {optim} needs whole weights, FSDP holds shards",
            where="train.optim",
            expected=f"one of {', '.join(SHARDABLE)}",
            cure="--set train.parallel=ddp, or --set train.optim=adamw",
        )


def shard(network: Any, world: World, dtype: torch.dtype) -> Any:
    """FSDP2: float32 weights in shards, computed with in `dtype`, layer by layer; gradients are summed in float32."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh = init_device_mesh(network.device.type, (world.size,))
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    parts = [*layers_of(network), network]
    for part in parts:
        fully_shard(part, mesh=mesh, mp_policy=policy)
    for part in parts:
        part.set_gradient_divide_factor(1.0)
        part.set_force_sum_reduction_for_comms(True)
    say(f"FSDP2: weights, gradients and optimiser states in {world.size} shards, {len(parts) - 1} layers")
    return network


def layers_of(network: Any) -> list[Any]:
    """The repeated layers of a decoder: the longest list of modules in it."""
    lists = [module for module in network.modules() if isinstance(module, torch.nn.ModuleList)]
    longest: list[Any] = []
    for found in lists:
        longest = list(found) if len(found) > len(longest) else longest
    return longest


def whole_weights(network: Any, world: World) -> dict[str, Any] | None:
    """All weights in one piece on the first process's CPU; None where each process holds a whole copy anyway."""
    if not world.sharded:
        return None
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_model_state_dict(network, options=options))


def check_same_start(network: Any, world: World) -> None:
    """Every process must start from the same weights. Raises PrerequisiteError 221."""
    if world.size == 1 or world.sharded:
        return
    with torch.no_grad():
        own = sum(float(p.detach().double().sum()) for p in network.parameters())
    sums = world.gather(own)
    if len(set(sums)) > 1:
        raise PrerequisiteError(
            221,
            f"the processes start from different weights (sums {sums})",
            where="model.name",
            expected="the same files and package versions on every machine",
        )
