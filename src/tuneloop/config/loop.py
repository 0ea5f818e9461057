"""A whole loop: one section a stage."""

from __future__ import annotations

from pydantic import Field

from tuneloop.config.analyze import AnalyzeConfig
from tuneloop.config.base import Section
from tuneloop.config.compare import CompareConfig
from tuneloop.config.data import DataConfig
from tuneloop.config.eval import EvalConfig
from tuneloop.config.generate import GenerateConfig
from tuneloop.config.model import ModelConfig
from tuneloop.config.report import ReportConfig
from tuneloop.config.sweep import SweepConfig
from tuneloop.config.train import TrainConfig


class RoundsConfig(Section):
    """How often the loop turns, and from where its new rows come."""

    pool: list[str] = Field(default_factory=list, description="files of rows that a round may add from")
    control: bool = Field(True, description="also tune on as many random rows of the pool")
    budget: int = Field(500, ge=1, description="most new rows of one round")
    repair: bool = Field(
        True,
        description="also carry out the lines of the data and train stages: drop, relabel, lay out anew, a lower rate",
    )


class LoopConfig(Section):
    model: ModelConfig = Field(default_factory=ModelConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    generate: GenerateConfig = Field(default_factory=GenerateConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    eval: EvalConfig = Field(default_factory=EvalConfig)
    compare: CompareConfig = Field(default_factory=CompareConfig)
    analyze: AnalyzeConfig = Field(default_factory=AnalyzeConfig)
    report: ReportConfig = Field(default_factory=ReportConfig)
    rounds: RoundsConfig = Field(default_factory=RoundsConfig)
    sweep: SweepConfig = Field(default_factory=SweepConfig)
    output_dir: str | None = None
