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


def test_clustered_interval_is_wider_where_rows_move_together() -> None:
    rng = np.random.default_rng(1)
    shared = np.repeat(rng.normal(size=40), 5)
    names = [f"c{i // 5}" for i in range(200)]
    plain, clustered = stats.mean_interval(shared), stats.clustered_interval(shared, names)
    # Five equal rows hold no more than one: the error is that of 40 rows.
    assert clustered[1] == pytest.approx(stats.mean_interval(shared[::5])[1], rel=1e-6)
    assert clustered[1] > 2 * plain[1]
    alone = [str(i) for i in range(200)]
    assert stats.clustered_interval(shared, alone)[1] == pytest.approx(plain[1])
    assert math.isnan(stats.clustered_interval([1.0, 2.0], ["a", "a"])[1])


def test_clustered_test_does_not_take_copies_for_evidence() -> None:
    rng = np.random.default_rng(2)
    names = [f"c{i // 10}" for i in range(120)]
    false = sum(
        stats.paired_clustered(np.repeat(rng.normal(size=12), 10), names, seed=trial, n=300)[2] <= 0.05
        for trial in range(200)
    )
    assert false / 200 <= 0.09
    assert stats.paired([0.0] * 20, [1.0] * 20, ["a"] * 20)["p"] == 1.0  # one source proves nothing


def test_paired_picks_the_test() -> None:
    found = stats.paired([1, 1, 0, 0, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1, 1])
    assert (found["test"], found["b"], found["c"], found["n"]) == ("exact McNemar", 1, 6, 8)
    assert found["p"] == stats.mcnemar_exact(1, 6)
    assert found["low"] < found["diff"] < found["high"]
    assert stats.paired([0.1, 0.5, 0.3], [0.2, 0.7, 0.4])["test"] == "paired permutation"
    assert found["clusters"] is None and stats.paired([0.0] * 4, [1.0] * 4, ["a", "a", "b", "b"])["clusters"] == 2


def test_power_is_exact_and_rows_needed_reach_it() -> None:
    # By hand, n = 6 and every row flips: only 0 or 6 of 6 is significant (2 / 64), so power is p^6 + q^6.
    assert stats.mcnemar_power(6, 0.5, 1.0) == pytest.approx(0.75**6 + 0.25**6)
    assert stats.mcnemar_power(5, 0.5, 1.0) == 0.0
    n = stats.rows_needed(0.02, 0.1)
    assert stats.mcnemar_power(n, 0.02, 0.1) >= 0.8 > stats.mcnemar_power(int(n * 0.93), 0.02, 0.1)
    assert 1900 < n < 2200
    assert stats.rows_needed_unpaired(0.02) == pytest.approx(9812, abs=2)


def test_holm_counts_tests_that_are_not_shown() -> None:
    assert stats.holm([0.01, 0.04], tried=5) == pytest.approx([0.05, 0.16])


def test_seed_spread_tells_seeds_from_noise() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(1, 400)) + rng.normal(size=(8, 400))
    assert stats.seed_spread(rows)["seed_effect"] < 0.06
    shifted = rows + np.linspace(-0.5, 0.5, 8)[:, None]
    assert stats.seed_spread(shifted)["seed_effect"] == pytest.approx(np.linspace(-0.5, 0.5, 8).std(ddof=1), rel=0.2)


def test_few_sources_can_show_nothing_after_a_correction() -> None:
    least = stats.sources_needed(25)
    assert 25 * 2.0 ** (1 - least) <= 0.05 < 25 * 2.0 ** (2 - least)
    names = [str(i % least) for i in range(3 * least)]
    assert stats.paired([0.0] * len(names), [1.0] * len(names), names)["p"] * 25 < 0.1
