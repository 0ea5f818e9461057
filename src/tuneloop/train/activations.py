"""Less memory for what the backward pass needs: computed again, or kept in CPU memory meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from tuneloop.config import TrainConfig
from tuneloop.console import say
from tuneloop.errors import UsageError
from tuneloop.train.attention import same_layout

Context = Callable[[], AbstractContextManager[Any]]
SMALL = 2**16  # bytes: moving less costs more than it saves


def recompute(network: Any, config: TrainConfig) -> None:
    """Has every layer (`full`) or every second one (`selective`) computed again in the backward pass.

    Raises UsageError 249 where the model's code has no such layers.
    """
    if config.gradient_checkpointing == "none":
        return
    try:
        # The layout of packed rows is known while the forward pass runs, so it is carried over to the second one.
        settings = {"use_reentrant": False, "context_fn": same_layout}
        _enable(network, settings)
    except ValueError as error:
        raise UsageError(
            249,
            f"this model cannot compute layers again: {error}",
            where="train.gradient_checkpointing",
            cure="--set train.gradient_checkpointing=none and a smaller train.per_device_train_batch_size",
        ) from error
    layers = [m for m in network.modules() if getattr(m, "gradient_checkpointing", False) and not _is_stack(m)]
    kept = layers[1::2] if config.gradient_checkpointing == "selective" else []
    for layer in kept:
        layer.gradient_checkpointing = False
    say(f"activations: {len(layers) - len(kept)} of {len(layers)} layers are computed again in the backward pass")


def _enable(network: Any, settings: dict[str, Any]) -> None:
    """Under its name from transformers 5.20 or so on, or the older one."""
    if hasattr(network, "activation_checkpointing_enable"):
        network.activation_checkpointing_enable(activation_checkpointing_kwargs=settings)
    else:
        network.gradient_checkpointing_enable(gradient_checkpointing_kwargs=settings)


def _is_stack(module: Any) -> bool:
    return any(isinstance(child, torch.nn.ModuleList) for child in module.children())


def keeping(network: Any, config: TrainConfig) -> Context:
    """The context in which forward passes run: it decides where saved tensors stay."""
    if not config.activation_offload:
        return nullcontext
    if network.device.type == "cpu":
        say("activation_offload: activations are in CPU memory already, so this changes nothing here")
    return lambda: _offloaded(network)


@contextmanager
def _offloaded(network: Any) -> Iterator[None]:
    """Tensors saved for the backward pass wait in CPU memory; weights, and what is small, stay where they are."""
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def pack(tensor: torch.Tensor) -> Any:
        if tensor.nbytes < SMALL or tensor.untyped_storage().data_ptr() in weights:
            return tensor
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=tensor.device.type == "cuda")
        return tensor.device, copy.copy_(tensor)

    def unpack(saved: Any) -> torch.Tensor:
        if isinstance(saved, torch.Tensor):
            return saved
        device, copy = saved
        moved: torch.Tensor = copy.to(device, non_blocking=True)
        return moved

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
