"""Scores a model on benchmarks and on the test split of a data folder; compares contenders on the same rows."""

from __future__ import annotations

from tuneloop.evaluate.compare import compare
from tuneloop.evaluate.contenders import Contender, resolve
from tuneloop.evaluate.prompting import Prompting
from tuneloop.evaluate.run import evaluate
from tuneloop.stage import callable_stage

__all__ = ["Contender", "Prompting", "compare", "evaluate", "resolve"]

callable_stage(__name__)
