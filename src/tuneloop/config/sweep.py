"""What a sweep tries."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from tuneloop.config.base import Section, Seed


class Range(Section):
    """Values between two ends (`low`, `high`, and `log` or a whole-number step), or a list of `choices`."""

    low: float | None = None
    high: float | None = None
    log: bool = False
    whole: bool = Field(False, description="whole numbers only")
    choices: list[Any] | None = None

    @model_validator(mode="before")
    @classmethod
    def _from_list(cls, value: Any) -> Any:
        return {"choices": value} if isinstance(value, list) else value

    @model_validator(mode="after")
    def _one_kind(self) -> Range:
        ends = self.low is not None and self.high is not None and self.low < self.high
        if bool(self.choices) == ends:
            raise ValueError("give choices, or low and high with low < high")
        if self.log and ends and (self.low or 0) <= 0:
            raise ValueError("a logarithmic range starts above 0")
        return self


class SweepConfig(Section):
    # None: learning rate around the rule's, in a logarithmic range of a hundred.
    space: dict[str, Range] = Field(default_factory=dict, description="key of the train section -> range or choices")
    trials: int = Field(16, ge=1)
    jobs: int = Field(1, ge=1, description="processes that try side by side")
    prune: bool = Field(True, description="stop a trial whose metric is below the median of the others at that step")
    warmup_trials: int = Field(3, ge=1, description="trials that finish before one is stopped")
    sampler: Literal["tpe", "random"] = "tpe"
    seed: Seed = 0
