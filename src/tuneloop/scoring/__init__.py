"""Log-likelihoods of continuations, with what options share computed once."""

from __future__ import annotations

from tuneloop.scoring.pairs import Pair, pair_tokens
from tuneloop.scoring.score import OptionScore, Scorer, loglikelihoods
from tuneloop.scoring.served import Served

__all__ = ["OptionScore", "Pair", "Scorer", "Served", "loglikelihoods", "pair_tokens"]
