"""Objectives on preference pairs. The texts of a layout are chosen, rejected, chosen, rejected, ..."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.base import Objective, Outcome, examples, trained_tokens, weights
from tuneloop.train.objectives.reference import Passes, text_sums
from tuneloop.train.objectives.tokens import text_log_probs, token_log_probs


def dpo(beta: float, label_smoothing: float = 0.0) -> Objective:
    """Direct preference optimisation (Rafailov et al. 2023, eq. 7; smoothed: Mitchell 2023, conservative DPO)."""
    reference: dict[str, list[float]] = {}

    def outcome(model: Any, layout: Layout, items: list[Item]) -> Outcome:
        found = text_log_probs(model, layout)
        before = torch.tensor([reference[item.id] for item in items], device=found.device)
        rewards = beta * (found.view(-1, 2) - before)
        margin = rewards[:, 0] - rewards[:, 1]
        losses = -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)
        return paired(losses, rewards, items)

    def before(model: Any, items: list[Item], passes: Passes) -> None:
        reference.update(text_sums(model, items, passes))

    return Objective("dpo", outcome, examples, before=before)


def simpo(beta: float, gamma: float) -> Objective:
    """SimPO (Meng et al. 2024, eq. 6): mean log-probabilities, no reference, a margin `gamma`."""

    def outcome(model: Any, layout: Layout, items: list[Item]) -> Outcome:
        rewards = beta * _means(token_log_probs(model, layout), layout)
        return paired(-logsigmoid(rewards[:, 0] - rewards[:, 1] - gamma), rewards, items)

    return Objective("simpo", outcome, examples)


def orpo(beta: float) -> Objective:
    """ORPO (Hong et al. 2024, eq. 6 and 7): cross-entropy of the chosen answers plus a log odds ratio.

    The cross-entropy is the mean over the chosen answers' tokens of the step; the prompt is not part of it.
    """
    exchange = {"rate": 1.0}  # what one token's loss weighs where an example weighs 1

    def note(model: Any, items: list[Item], passes: Passes) -> None:
        exchange["rate"] = examples(items) / _chosen_tokens(items)

    return Objective("orpo", partial(_orpo, beta, exchange), examples, note=note)


def _chosen_tokens(items: list[Item]) -> float:
    return trained_tokens([_chosen(item) for item in items])


def _chosen(item: Item) -> Item:
    end = len(item.input_ids) if item.fork is None else item.fork[1]
    return Item(item.id, item.input_ids[:end], item.trained[:end], item.weight)


def _orpo(beta: float, exchange: dict[str, float], model: Any, layout: Layout, items: list[Item]) -> Outcome:
    found = token_log_probs(model, layout)
    means = _means(found, layout)
    odds = means - torch.log1p(-means.exp().clamp(max=1 - 1e-7))
    ratio = logsigmoid(odds[:, 0] - odds[:, 1])
    chosen = layout.owner % 2 == 0
    pair = layout.owner // 2
    nll = torch.zeros(len(items), device=found.device).index_add(0, pair, torch.where(chosen, -found, 0.0))
    return paired(exchange["rate"] * nll - beta * ratio, beta * means, items)


def _means(found: torch.Tensor, layout: Layout) -> torch.Tensor:
    """[pairs, 2] mean log-probability of each text's trained tokens."""
    sums = torch.zeros(len(layout.texts), device=found.device).index_add(0, layout.owner, found)
    return (sums / torch.bincount(layout.owner, minlength=len(layout.texts)).clamp(min=1)).view(-1, 2)


def paired(losses: torch.Tensor, rewards: torch.Tensor, items: list[Item]) -> Outcome:
    """losses [B], rewards [B, 2] of chosen and rejected."""
    margin = (rewards[:, 0] - rewards[:, 1]).detach()
    sums = {"reward_margin": margin.sum(), "reward_accuracy": (margin > 0).float().sum()}
    return Outcome((losses * weights(items, losses)).sum(), losses.detach(), sums)
