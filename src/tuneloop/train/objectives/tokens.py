"""What the model says at the positions that predict a trained token; nothing is projected anywhere else."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch

from tuneloop.train.attention import packed
from tuneloop.train.batch import Layout
from tuneloop.train.project import PLAIN, Shape, log_probs, project, summed_losses


@dataclass(frozen=True, slots=True)
class Head:
    """The output projection of a model whose scores are a plain product with the decoder's hidden states."""

    decoder: Any
    projection: torch.nn.Linear


_heads: WeakKeyDictionary[Any, Head | None] = WeakKeyDictionary()


def token_losses(
    model: Any, layout: Layout, scale: torch.Tensor, shape: Shape = PLAIN
) -> tuple[torch.Tensor, torch.Tensor]:
    """() the sum of `scale` [N] times each trained token's cross-entropy, and [N] the latter, detached."""
    hidden, weight, bias = outputs(model, layout)
    return summed_losses(hidden, weight, bias, layout.target, scale, shape)


def token_log_probs(model: Any, layout: Layout) -> torch.Tensor:
    """[N] differentiable log-probabilities of the trained tokens, float32."""
    return log_probs(*outputs(model, layout), layout.target)


def text_log_probs(model: Any, layout: Layout) -> torch.Tensor:
    """[texts] the sum over each text's trained tokens of their log-probabilities."""
    found = token_log_probs(model, layout)
    return torch.zeros(len(layout.texts), device=found.device).index_add(0, layout.owner, found)


def hidden_states(decoder: Any, layout: Layout) -> torch.Tensor:
    """[rows * T, D] of the last layer."""
    found: torch.Tensor = _run(decoder, layout).last_hidden_state
    return found.flatten(0, 1)


def scores(model: Any, layout: Layout) -> torch.Tensor:
    """[N, V] the scores before each trained token, all at once."""
    return project(*outputs(model, layout))


def head(model: Any) -> Head | None:
    """The plain head of a model, found once; None where its scores are anything but one product."""
    if model not in _heads:
        _heads[model] = _find(model)
    return _heads[model]


def suppose_plain(model: Any) -> None:
    """Takes the head of a model without numbers, which cannot be tried, for one product where it is a Linear."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    projection = inner.get_output_embeddings()
    decoder = getattr(inner, getattr(inner, "base_model_prefix", "") or "", None)
    if decoder is not None and decoder is not inner and type(projection) is torch.nn.Linear:
        _heads[model] = Head(decoder, projection)


def _find(model: Any) -> Head | None:
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    projection = inner.get_output_embeddings()
    decoder = getattr(inner, getattr(inner, "base_model_prefix", "") or "", None)
    plain = type(projection) is torch.nn.Linear and type(projection.weight) is torch.nn.Parameter
    if decoder is None or decoder is inner or not plain:
        return None
    ids = torch.arange(3, 11, device=projection.weight.device)[None] % projection.weight.shape[0]
    before = inner.training
    inner.eval()
    with torch.no_grad():
        want = inner(input_ids=ids, use_cache=False).logits.float()
        got = projection(decoder(input_ids=ids, use_cache=False).last_hidden_state).float()
    inner.train(before)
    return Head(decoder, projection) if torch.allclose(got, want, rtol=1e-4, atol=1e-4) else None


def outputs(model: Any, layout: Layout) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
    """hidden [N, D], weight [V, D] and bias whose product are the scores before the trained tokens.

    Where the head is not plain, the scores [N, V] themselves and no weight.
    """
    found = head(model)
    if found is not None:
        at = hidden_states(found.decoder, layout).index_select(0, layout.source)
        return at, found.projection.weight, found.projection.bias
    width = layout.input_ids.shape[1]
    # A padded batch keeps the union of the columns that any of its rows needs.
    rows, columns = layout.source // width, layout.source % width
    kept, where = torch.unique(columns, return_inverse=True)
    if not takes(model, "logits_to_keep"):
        return _run(model, layout).logits[rows, columns], None, None
    return _run(model, layout, logits_to_keep=kept).logits[rows, where], None, None


def _run(model: Any, layout: Layout, **more: Any) -> Any:
    inputs: dict[str, Any] = {"input_ids": layout.input_ids, "use_cache": False, **more}
    if takes(model, "position_ids"):
        inputs["position_ids"] = layout.positions
    if layout.mask is not None:
        return model(**inputs, attention_mask=layout.mask)
    with packed(layout.texts, layout.input_ids.device):
        return model(**inputs)


def takes(model: Any, name: str) -> bool:
    """Whether the model's forward has an argument of this name, also behind an adapter."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(inner.forward).parameters
