"""How errors are read."""

from __future__ import annotations

from pydantic import Field

from tuneloop.config.base import Section


class AnalyzeConfig(Section):
    alpha: float = Field(0.05, gt=0, lt=1)
    min_slice: int = Field(20, ge=5, description="rows a slice needs")
    near_miss: float = Field(0.35, gt=0, lt=1, description="p(gold) above which a wrong row is a near miss")
    confident: float = Field(0.8, gt=0, lt=1, description="p(pick) above which a wrong row is confident")
    seed: int = 0
