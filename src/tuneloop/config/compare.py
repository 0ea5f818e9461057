"""Which contenders are measured side by side, and what their answers cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tuneloop.config.base import Section

Kind = Literal[
    "base", "instructions", "few_shot", "few_shot_retrieved", "chain_of_thought", "self_consistency", "prompt_search",
    "tune", "best_tune", "tune_prompted",
]  # fmt: skip


class Prices(Section):
    """US dollars. A server is paid by tokens, a machine by the hour; what is not given is unknown, never 0."""

    input: float | None = Field(None, ge=0, description="a million prompt tokens")
    output: float | None = Field(None, ge=0, description="a million answer tokens")
    hour: float | None = Field(None, ge=0, description="an hour of the machine that answers and trains")
    tune: float | None = Field(None, ge=0, description="what the tuning cost; else hour x its seconds")


class CompareConfig(Section):
    contenders: list[Kind] = Field(
        default_factory=list, description="none: all of them in `compare`; base, few_shot and tune in `run`"
    )
    tunes: dict[str, str] = Field(default_factory=dict, description="name: model folder")
    instruction: str | None = Field(None, description="text of the contender 'instructions'; none: written by kind")
    samples: int = Field(5, ge=2, description="thoughts that vote in self_consistency")
    search_rows: int = Field(800, ge=40, description="rows of the valid split that the prompt search may score in all")
    search_proposals: int = Field(4, ge=0, description="instructions that the model itself proposes to the search")
    margin: float = Field(0.02, gt=0, lt=1, description="a smaller difference (a share) is no reason to choose")
    alpha: float = Field(0.05, gt=0, lt=1)
    prices: Prices = Field(default_factory=Prices)
