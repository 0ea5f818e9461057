"""Master weights, clipping, one update, and all of its state by name."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any

import torch
from torch.utils.weak import WeakTensorKeyDictionary

from tuneloop.config import TrainConfig
from tuneloop.errors import UsageError
from tuneloop.train.optimizers import make

# The hook of each low-precision weight: a weight gives its gradients to the newest optimiser alone.
_takers: Any = WeakTensorKeyDictionary()


class Optimizer:
    """Updates float32 copies of low-precision weights, float32 weights in place.

    With `bf16_update: stochastic` a bfloat16 weight has no copy: it is updated in float32 one weight at a time and
    rounded up or down by chance, so that small updates are kept on average.
    """

    def __init__(self, model: torch.nn.Module, config: TrainConfig, rate: float) -> None:
        self.weights = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self.stochastic = config.bf16_update == "stochastic" and any(p.dtype == torch.bfloat16 for _, p in self.weights)
        self.masters = [p if p.dtype == torch.float32 else p.detach().float() for _, p in self.weights]
        self.rate, self.max_norm = rate, config.max_grad_norm
        device = self.masters[0].device.type if self.masters else "cpu"
        self.inner: list[torch.optim.Optimizer] = []
        for groups in self._groups(model, config):
            self.inner += make(groups, config, device)
        if self.stochastic:
            _only_adamw(config)
            self._let_go()
        for i, (_, weight) in enumerate(self.weights):
            if (before := _takers.pop(weight, None)) is not None:
                before.remove()
            if self.masters[i] is not weight:
                _takers[weight] = weight.register_post_accumulate_grad_hook(self._taker(i))

    def _groups(self, model: torch.nn.Module, config: TrainConfig) -> list[list[dict[str, Any]]]:
        """Weights by learning rate, decay and place; one optimiser a weight where each is updated alone.

        Vectors (norms, biases) are not decayed. `edge`: embeddings and head. `factor`: `lr_groups` and LoRA+.
        """
        edges = {id(m.weight) for m in _edges(model)}
        found: dict[Any, dict[str, Any]] = {}
        for i, ((name, weight), master) in enumerate(zip(self.weights, self.masters, strict=True)):
            decay = config.weight_decay if master.ndim >= 2 else 0.0
            edge, factor = id(weight) in edges, _factor(name, config)
            key = (factor, decay, edge, i if self.stochastic else 0)
            group = {"params": [], "weight_decay": decay, "edge": edge, "factor": factor, "lr": self.rate * factor}
            found.setdefault(key, group)["params"].append(master)
        return [[group] for group in found.values()] if self.stochastic else [list(found.values())]

    def _taker(self, place: int) -> Any:
        """Moves a low-precision gradient into the float32 one as soon as it is there."""

        def take(weight: torch.Tensor) -> None:
            master = self.masters[place]
            if weight.grad is not None:
                master.grad = weight.grad.float() if master.grad is None else master.grad.add_(weight.grad)
                weight.grad = None

        return take

    def step(self, factor: float) -> float:
        """One update at `factor` times the peak rate; returns the gradient norm before clipping.

        A norm that is not finite changes nothing.
        """
        limit = self.max_norm if self.max_norm > 0 else math.inf
        norm = self._clip(limit)
        if not torch.isfinite(norm):
            return float(norm)
        for optimizer in self.inner:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * factor * group["factor"]
        if self.stochastic:
            self._step_by_chance()
        else:
            for optimizer in self.inner:
                optimizer.step()
            self._write()
        for (_, weight), master in zip(self.weights, self.masters, strict=True):
            weight.grad = master.grad = None
        return float(norm)

    def _clip(self, limit: float) -> torch.Tensor:
        if not self.stochastic:
            return torch.nn.utils.clip_grad_norm_(self.masters, limit)
        grads = [m.grad for m in self.masters if m.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        for grad in grads:
            grad.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))
        return norm

    @torch.no_grad()
    def _step_by_chance(self) -> None:
        for optimizer, place in zip(self.inner, self._order(), strict=True):
            weight, master = self.weights[place][1], self.masters[place]
            if master is not weight:
                master.data = weight.float()
            optimizer.step()
            if master is not weight:
                weight.copy_(round_by_chance(master))
        self._let_go()

    def _order(self) -> list[int]:
        """Which weight each of the inner optimisers updates."""
        place = {id(master): i for i, master in enumerate(self.masters)}
        return [place[id(optimizer.param_groups[0]["params"][0])] for optimizer in self.inner]

    def _let_go(self) -> None:
        """The float32 copies hold no memory between updates; their shape stays."""
        for (_, weight), master in zip(self.weights, self.masters, strict=True):
            if master is not weight:
                master.data = torch.zeros((), device=weight.device).expand(weight.shape)

    @torch.no_grad()
    def _write(self) -> None:
        for (_, weight), master in zip(self.weights, self.masters, strict=True):
            if master is not weight:
                weight.copy_(master)

    def settle(self) -> None:
        """Gives the model the weights to be judged and kept: the averaged ones of schedule-free updates."""
        for kind in self._averaging():
            kind.eval()
            self._write()

    @contextmanager
    def settled(self) -> Iterator[None]:
        """Inside, the model is as after `settle`; behind it, as before to the last bit."""
        if not self._averaging():
            yield
            return
        kept = [master.detach().clone() for master in self.masters]
        self.settle()
        yield
        for kind in self._averaging():
            kind.train()
        with torch.no_grad():
            for master, before in zip(self.masters, kept, strict=True):
                master.copy_(before)
        self._write()

    def _averaging(self) -> list[Any]:
        return [optimizer for optimizer in self.inner if hasattr(optimizer, "eval")]

    def tensors(self) -> dict[str, torch.Tensor]:
        """All state by name, for a checkpoint; numbers as float64 tensors under `number.`."""
        names = {id(master): name for (name, _), master in zip(self.weights, self.masters, strict=True)}
        state: dict[str, torch.Tensor] = {}
        for (name, weight), master in zip(self.weights, self.masters, strict=True):
            state[f"master.{name}"] = (weight if self.stochastic else master).detach()
        for i, optimizer in enumerate(self.inner):
            for master, values in optimizer.state.items():
                for key, value in values.items():
                    _put(state, f"adam.{key}.{names[id(master)]}", value)
            for j, group in enumerate(optimizer.param_groups):
                for key in COUNTED & group.keys():
                    _put(state, f"group.{i}.{j}.{key}", group[key])
        # A table that several weights share (8-bit codes) is written for each: a checkpoint holds no shared memory.
        return {name: value.clone() if "qmap" in name else value.contiguous() for name, value in state.items()}

    @torch.no_grad()
    def load(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of `tensors`; also writes the model's weights."""
        names = {id(master): name for (name, _), master in zip(self.weights, self.masters, strict=True)}
        found: dict[str, dict[str, Any]] = {}
        for name, value in state.items():
            kind, _, rest = name.removeprefix("number.").partition(".")
            if kind == "adam":
                key, _, owner = rest.partition(".")
                number = name.startswith("number.")
                found.setdefault(owner, {})[key] = _number(value.item()) if number else value
        for i, optimizer in enumerate(self.inner):
            for group in optimizer.param_groups:
                for master in group["params"]:
                    if own := found.get(names[id(master)]):
                        optimizer.state[master] = {k: _on(v, master.device) for k, v in own.items()}
            for j, group in enumerate(optimizer.param_groups):
                for key in COUNTED & group.keys():
                    group[key] = _number(state[f"number.group.{i}.{j}.{key}"].item())
        for (name, weight), master in zip(self.weights, self.masters, strict=True):
            target = weight if self.stochastic else master
            target.copy_(state[f"master.{name}"])
        if not self.stochastic:
            self._write()


# What schedule-free updates count in their groups.
COUNTED = {"k", "weight_sum", "lr_max", "scheduled_lr", "train_mode"}


def _put(state: dict[str, torch.Tensor], name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        state[name] = value
    elif isinstance(value, bool | int | float):
        state[f"number.{name}"] = torch.tensor(float(value), dtype=torch.float64)


def _number(value: float) -> float | int:
    return int(value) if float(value).is_integer() else value


def _on(value: Any, device: torch.device) -> Any:
    return value.clone().to(device) if isinstance(value, torch.Tensor) else value


def _edges(model: torch.nn.Module) -> list[Any]:
    names = ("get_input_embeddings", "get_output_embeddings")
    found = [getattr(model, name)() for name in names if hasattr(model, name)]
    return [module for module in found if module is not None and hasattr(module, "weight")]


def _factor(name: str, config: TrainConfig) -> float:
    """Learning rate of a weight over that of the run: the first pattern that fits, and LoRA+ for the B matrices."""
    factor = next((value for pattern, value in config.lr_groups.items() if fnmatch(name, pattern)), 1.0)
    return factor * (config.loraplus_lr_ratio if ".lora_B." in name else 1.0)


def _only_adamw(config: TrainConfig) -> None:
    if config.optim != "adamw":
        raise UsageError(
            263,
            f"stochastic rounding is not made for the optimiser {config.optim}",
            where="train.bf16_update",
            expected="train.optim=adamw",
            cure="--set train.bf16_update=master",
        )


def round_by_chance(x: torch.Tensor) -> torch.Tensor:
    """float32 -> bfloat16, up or down with the chance that keeps the mean: 16 random bits below the last kept one."""
    noise = torch.randint(0, 2**16, x.shape, dtype=torch.int32, device=x.device)
    bits = (x.contiguous().view(torch.int32) + noise) & -65536
    return torch.where(x.isfinite(), bits.view(torch.float32), x).bfloat16()
