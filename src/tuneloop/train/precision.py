"""bfloat16 on a CPU: only where the processor multiplies it natively and it is exact enough on the data at hand.

The rule: on the first examples of the run, the loss in bfloat16 is within 1 % of the one in float32, and the gradient
points the same way (cosine of at least 0.99). Master weights stay float32 in any case. Asked only of runs long enough
to gain from it, of whole models, and of objectives on single texts; everything else on a CPU is float32.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch.nn.functional import cosine_similarity

from tuneloop.config import TrainConfig
from tuneloop.console import say
from tuneloop.train.batch import Item, pack, pad
from tuneloop.train.fuse import WORTH
from tuneloop.train.objectives.sft import sft

LOSS, COSINE, EXAMPLES = 1e-2, 0.99, 8


def to_half(network: Any, config: TrainConfig, items: list[Item], packing: bool, pad_id: int) -> bool:
    """Whether this run is to compute in bfloat16 by the rule above."""
    if network.device.type != "cpu" or config.objective not in ("sft", "kto", "distill") or not native_bfloat16():
        return False
    tokens = sum(len(item.input_ids) for item in items)
    passes = config.num_train_epochs
    if config.max_steps:
        size = config.per_device_train_batch_size * config.gradient_accumulation_steps
        passes = config.max_steps * size / max(1, len(items))
    if 6.0 * network.num_parameters() * tokens * passes <= WORTH:
        return False
    return exact_enough(network, items, packing, pad_id)


def native_bfloat16() -> bool:
    """Whether this processor has bfloat16 products of its own (AVX512_BF16, AMX)."""
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, name, lambda: False)()) for name in asked)


def exact_enough(network: Any, items: list[Item], packing: bool, pad_id: int) -> bool:
    """Compares one gradient in both precisions, says what was found, and leaves the model as it was."""
    some = sorted(items[:EXAMPLES], key=lambda item: len(item.input_ids))
    layout = pack(some, network.device) if packing else pad(some, pad_id, network.device)
    loss, gradient = _gradient(network, layout, some)
    half = copy.deepcopy(network).to(torch.bfloat16)
    near, other = _gradient(half, layout, some)
    gap = abs(near - loss) / max(abs(loss), 1e-9)
    angle = float(cosine_similarity(gradient, other, dim=0))
    fits = gap <= LOSS and angle >= COSINE
    say(
        f"{'bfloat16' if fits else 'float32'}: on {len(some)} examples the loss in bfloat16 is off by {gap:.2%} "
        f"(at most {LOSS:.0%}), the gradient's cosine is {angle:.4f} (at least {COSINE})"
    )
    return fits


def _gradient(network: Any, layout: Any, items: list[Item]) -> tuple[float, torch.Tensor]:
    objective = sft()
    loss = objective.outcome(network, layout, items).total / objective.mass(items)
    loss.backward()
    found = torch.cat([p.grad.float().flatten() for p in network.parameters() if p.grad is not None])
    network.zero_grad(set_to_none=True)
    return float(loss.detach()), found
