"""Settings, one file a stage; `load` fills them from YAML and `--set`."""

from __future__ import annotations

from tuneloop.config.analyze import AnalyzeConfig
from tuneloop.config.compare import CompareConfig, Prices
from tuneloop.config.data import DataConfig
from tuneloop.config.eval import EvalConfig, JudgeSpec, TaskSpec
from tuneloop.config.generate import GenerateConfig, TeacherConfig
from tuneloop.config.load import Loaded, load
from tuneloop.config.loop import LoopConfig, RoundsConfig
from tuneloop.config.model import ModelConfig
from tuneloop.config.report import ReportConfig
from tuneloop.config.sweep import SweepConfig
from tuneloop.config.train import TrainConfig

__all__ = [
    "AnalyzeConfig",
    "CompareConfig",
    "DataConfig",
    "EvalConfig",
    "GenerateConfig",
    "JudgeSpec",
    "Loaded",
    "LoopConfig",
    "ModelConfig",
    "Prices",
    "ReportConfig",
    "RoundsConfig",
    "SweepConfig",
    "TaskSpec",
    "TeacherConfig",
    "TrainConfig",
    "load",
]
