"""Log-likelihoods of continuations, with what options share computed once."""

from __future__ import annotations

from tuneloop.scoring.pairs import Pair, pair_tokens
from tuneloop.scoring.score import OptionScore, Scorer, loglikelihoods

__all__ = ["OptionScore", "Pair", "Scorer", "loglikelihoods", "pair_tokens"]
