"""How much arithmetic a step is, and how much of it the machine could do.

Counted: 2 operations for each weight of a layer and each real token forward, 2 for the gradient of the input, 2 more
where the weight is trained; the output projection at trained tokens alone; causal attention inside each text. What is
padded or computed a second time does not count.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch

from tuneloop.train.batch import Item, targets, texts


@dataclass(frozen=True, slots=True)
class Cost:
    """Operations: `token` for each token, `trained` more for each trained one, `square` for n^2 of a text of n."""

    token: float
    trained: float
    square: float

    def step(self, items: list[Item]) -> float:
        tokens = sum(len(item.input_ids) for item in items)
        trained = sum(len(targets(item)) for item in items)
        squares = sum(len(text) ** 2 for item in items for text in texts(item))
        return self.token * tokens + self.trained * trained + self.square * squares


def cost_of(network: Any) -> Cost:
    config = network.config.get_text_config()
    head = network.get_output_embeddings()
    outside = {id(p) for part in (network.get_input_embeddings(), head) if part is not None for p in part.parameters()}
    token = sum(_operations(p) for p in network.parameters() if id(p) not in outside and p.ndim >= 2)
    trained = _operations(head.weight) if head is not None else 0.0
    heads = int(getattr(config, "num_attention_heads", 0) or 0)  # none in state-space models
    width = heads * int(getattr(config, "head_dim", None) or config.hidden_size // max(1, heads))
    # Two products of n x n x width, half of them masked, once forward and twice backward.
    return Cost(token, trained, 6.0 * width * int(config.num_hidden_layers))


def shape_cost(shape: Any, method: str) -> Cost:
    """The cost of a model of this shape without its weights; `method` says whether they are trained."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(shape)
    network.requires_grad_(method == "full")
    return cost_of(network)


def _operations(weight: torch.Tensor) -> float:
    return weight.numel() * (6.0 if weight.requires_grad else 4.0)


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product on this machine, now: the median of three."""
    size = 8192 if device.type == "cuda" else 1024
    with torch.no_grad():
        a = torch.ones(size, size, device=device, dtype=dtype)
        seconds = [_timed(a) for _ in range(4)][1:]
    return 2.0 * size**3 / median(seconds)


def _timed(a: torch.Tensor) -> float:
    started = time.perf_counter()
    (a @ a)[0, 0].item()
    return time.perf_counter() - started
