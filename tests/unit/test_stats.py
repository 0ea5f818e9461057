"""Statistics against published or hand-computed values, and by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tuneloop import stats


def test_wilson_known_values() -> None:
    # Newcombe 1998, table I: 81/263 and 0/20.
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert stats.wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert stats.wilson(0, 0) == (0.0, 1.0)


def test_mcnemar_known_values() -> None:
    assert stats.mcnemar_exact(0, 5) == pytest.approx(2 / 32)
    assert stats.mcnemar_midp(0, 5) == pytest.approx(1 / 32)
    assert stats.mcnemar_exact(6, 16) == pytest.approx(0.05248, abs=1e-5)
    assert stats.mcnemar_exact(0, 0) == 1.0
    assert stats.mcnemar_exact(7, 7) == 1.0


def test_mcnemar_false_positive_rate() -> None:
    rng = np.random.default_rng(3)
    hits = sum(stats.mcnemar_exact(int(b), 40 - int(b)) <= 0.05 for b in rng.binomial(40, 0.5, size=2000))
    assert hits / 2000 <= 0.05


def test_paired_bootstrap_covers_and_does_not_cry_wolf() -> None:
    rng = np.random.default_rng(5)
    covered, false = 0, 0
    for trial in range(200):
        low, high, p = stats.paired_bootstrap(rng.normal(0.0, 1.0, size=60), seed=trial, n=400)
        covered += low <= 0.0 <= high
        false += p <= 0.05
    assert 0.88 <= covered / 200 <= 1.0
    assert false / 200 <= 0.09
    low, high, p = stats.paired_bootstrap(rng.normal(1.0, 1.0, size=60), n=1000)
    assert 0.5 < low < high < 1.5
    assert p < 0.01


def test_paired_bootstrap_edges() -> None:
    assert stats.paired_bootstrap([0.0, 0.0]) == (0.0, 0.0, 1.0)
    assert stats.paired_bootstrap([])[2] == 1.0
    assert stats.paired_bootstrap([0.3], n=100)[2] == 1.0


def test_corrections_known_values() -> None:
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert stats.holm([]) == []


def test_detectable_matches_the_planning_table() -> None:
    # shared research, section 3: MMLU 0.7 points at 10 % flips, ARC-Challenge 3.7 at 20 %.
    assert stats.detectable_difference(14042, 0.1) == pytest.approx(0.0075, abs=1e-3)
    assert stats.detectable_difference(1172, 0.2) == pytest.approx(0.037, abs=1e-3)


def test_mean_interval() -> None:
    mean, error, low, high = stats.mean_interval([1.0, 2.0, 3.0])
    assert (mean, error) == pytest.approx((2.0, 0.57735), abs=1e-5)
    assert (low, high) == pytest.approx((-0.4841, 4.4841), abs=1e-4)
    assert math.isnan(stats.mean_interval([4.0])[1])
