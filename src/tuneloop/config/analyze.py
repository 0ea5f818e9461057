"""How errors are read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuneloop.config.base import Section, Seed


class AnalyzeConfig(Section):
    alpha: float = Field(0.05, gt=0, lt=1)
    min_slice: int = Field(20, ge=5, description="rows a slice needs")
    near_miss: float = Field(0.35, gt=0, lt=1, description="p(gold) above which a wrong row is a near miss")
    confident: float = Field(0.8, gt=0, lt=1, description="p(pick) above which a wrong row is confident")
    budget: int = Field(500, ge=1, description="most new rows that one line of next_data.jsonl asks for")
    influence: int = Field(
        0, ge=0, description="wrong rows whose most helpful and harmful training rows are looked for (gradients; slow)"
    )
    probes: list[Literal["blank", "rotate", "cloze", "shots"]] = Field(
        default_factory=list, description="further forwards that tell more: blank, rotate, cloze, shots"
    )
    checkpoints: bool = Field(
        False, description="score every kept checkpoint too: gain and loss along the training (one evaluation each)"
    )
    seed: Seed = 0
