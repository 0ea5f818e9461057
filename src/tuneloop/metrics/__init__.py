"""From scored options and written answers to numbers."""

from __future__ import annotations

from tuneloop.metrics.options import (
    TIE,
    best,
    by_characters,
    chance,
    macro_f1,
    margin,
    shares,
    tied,
    trivial,
    true_mass,
)
from tuneloop.metrics.text import BY_KIND, TEXT_METRICS, Corpus, TextMetric, corpus, final_number, text_metric

__all__ = [
    "BY_KIND",
    "TEXT_METRICS",
    "TIE",
    "Corpus",
    "TextMetric",
    "best",
    "by_characters",
    "chance",
    "corpus",
    "final_number",
    "macro_f1",
    "margin",
    "shares",
    "text_metric",
    "tied",
    "trivial",
    "true_mass",
]
