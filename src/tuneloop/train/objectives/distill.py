"""Distillation: the student's distribution drawn to a teacher's at every trained token (Agarwal et al. 2024, eq. 1)."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import kl_div

from tuneloop.errors import UsageError
from tuneloop.train.batch import Item, Layout
from tuneloop.train.objectives.base import Objective, Outcome, trained_tokens, weights
from tuneloop.train.objectives.sft import row_means
from tuneloop.train.objectives.tokens import outputs, scores
from tuneloop.train.project import summed


def distill(teacher: Any, beta: float, temperature: float) -> Objective:
    """`beta` 0: KL(teacher || student); 1: KL(student || teacher); between: generalised Jensen-Shannon divergence."""

    def outcome(model: Any, layout: Layout, items: list[Item]) -> Outcome:
        with torch.no_grad():
            aim = scores(teacher, layout)
        hidden, weight, bias = outputs(model, layout)
        scale = weights(items, layout.source)[layout.owner]

        def losses_of(found: torch.Tensor, part: slice) -> torch.Tensor:
            return divergence(found / temperature, aim[part].float() / temperature, beta)

        total, losses = summed(hidden, weight, bias, scale, losses_of)
        return Outcome(total, row_means(losses, layout.owner, len(items)))

    return Objective("distill", outcome, trained_tokens)


def divergence(student: torch.Tensor, teacher: torch.Tensor, beta: float) -> torch.Tensor:
    """[n] of scores [n, V]."""
    mine, aim = student.log_softmax(-1), teacher.log_softmax(-1)
    if beta == 0.0:
        return kl_div(mine, aim, reduction="none", log_target=True).sum(-1)
    if beta == 1.0:
        return kl_div(aim, mine, reduction="none", log_target=True).sum(-1)
    share = torch.tensor(beta, device=mine.device)
    middle = torch.logaddexp(mine + torch.log1p(-share), aim + share.log())
    from_teacher = kl_div(middle, aim, reduction="none", log_target=True)
    from_student = kl_div(middle, mine, reduction="none", log_target=True)
    return (beta * from_teacher + (1 - beta) * from_student).sum(-1)


def check_vocabulary(student: Any, teacher: Any, name: str) -> None:
    """Raises UsageError 266 where the two do not score the same tokens."""
    ours, theirs = (m.get_output_embeddings().weight.shape[0] for m in (student, teacher))
    if ours != theirs:
        raise UsageError(
            266,
            f"the teacher scores {theirs} tokens, the student {ours}",
            where=f"train.teacher ({name})",
            expected="a teacher with the student's tokenizer and vocabulary",
            cure="choose a larger model of the same family",
        )
