"""KTO (Ethayarajh et al. 2024, eq. 7 and 8): single answers marked good or bad."""

from __future__ import annotations

from typing import Any

import torch

from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.base import Objective, Outcome, examples, weights
from tuneloop.train.objectives.reference import Passes, text_sums
from tuneloop.train.objectives.tokens import text_log_probs


def kto(beta: float, desirable_weight: float, undesirable_weight: float, max_length: int | None = None) -> Objective:
    """The divergence from the reference is estimated over the whole step, on each prompt with another's answer.

    The answer is that of the example before it in the data, so that the reference is known before the first step.
    """
    reference: dict[str, list[float]] = {}
    strangers: dict[str, Item] = {}
    shift = {"kl": 0.0}

    def before(model: Any, items: list[Item], passes: Passes) -> None:
        most = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 10**9
        room = min(max_length or 10**9, most)
        others = {item.id: mismatched(item, items[i - 1], room) for i, item in enumerate(items)}
        strangers.update(others)
        reference.update(text_sums(model, [*items, *others.values()], passes))

    def note(model: Any, items: list[Item], passes: Passes) -> None:
        asked = [strangers[item.id] for item in items]
        now = text_sums(model, asked, passes, show="divergence")
        gaps = [now[item.id][0] - reference[item.id][0] for item in asked]
        shift["kl"] = max(0.0, sum(gaps) / len(gaps))

    def outcome(model: Any, layout: Layout, items: list[Item]) -> Outcome:
        found = text_log_probs(model, layout)
        rewards = found - torch.tensor([reference[item.id][0] for item in items], device=found.device)
        good = torch.tensor([item.desirable for item in items], device=found.device)
        sign = torch.where(good, 1.0, -1.0)
        value = torch.where(good, desirable_weight, undesirable_weight)
        losses = value * (1 - torch.sigmoid(beta * sign * (rewards - shift["kl"])))
        sums = {"kl": torch.full_like(losses.detach(), shift["kl"]).sum(), "reward": (beta * rewards).detach().sum()}
        return Outcome((losses * weights(items, losses)).sum(), losses.detach(), sums)

    return Objective("kto", outcome, examples, note=note, before=before)


def mismatched(item: Item, other: Item, room: int) -> Item:
    """The prompt of one example with the answer of another, cut to `room` tokens in all."""
    start, cut = _answer(item), _answer(other)
    return Item(
        f"{item.id}/{other.id}",
        (item.input_ids[:start] + other.input_ids[cut:])[:room],
        (item.trained[:start] + other.trained[cut:])[:room],
        1.0,
    )


def _answer(item: Item) -> int:
    """Where the last run of trained tokens starts."""
    end = max(i for i, on in enumerate(item.trained) if on)
    while end > 0 and item.trained[end - 1]:
        end -= 1
    return end
