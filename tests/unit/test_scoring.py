"""Scores against a plain forward pass of a tiny random model."""

from __future__ import annotations

import math
import random
from itertools import pairwise
from typing import Any

import pytest
import torch

from tuneloop import metrics
from tuneloop.errors import DataError
from tuneloop.scoring import Pair, Scorer, attend, budget, share
from tuneloop.scoring.tree import build


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=32,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def reference(model: Any, prompt: list[int], scored: list[int], room: int) -> float:
    """The definition, word for word: keep the last room + 1 tokens, predict the scored ones."""
    whole = (prompt + scored)[-(room + 1) :]
    with torch.no_grad():
        rows = torch.log_softmax(model(torch.tensor([whole[:-1]])).logits[0].float(), -1)
    kept = scored[-(len(whole) - 1) :]
    first = len(whole) - 1 - len(kept)
    return math.fsum(rows[first + i, token].item() for i, token in enumerate(kept))


REQUESTS = [
    [Pair([1, 2, 3], [4, 5]), Pair([1, 2, 3], [4, 6, 7]), Pair([1, 2, 3], [8])],
    [Pair([1, 9], [4]), Pair([1, 9, 10], [5, 5]), Pair([1, 11], [6, 7, 8])],  # prompts that differ
    [Pair([1], [2, 3]), Pair([1], [2, 3])],  # equal options
    [Pair(list(range(1, 31)), [5, 6, 7, 8]), Pair(list(range(1, 31)), [5])],  # one is too long
]


@pytest.mark.parametrize("tokens", [64, 4096])
def test_shared_sequences_equal_the_definition(model: Any, tokens: int) -> None:
    scorer = Scorer(model, max_length=32, batch_tokens=tokens)
    found = scorer.score(REQUESTS)
    assert scorer.tree is True
    for pairs, row in zip(REQUESTS, found, strict=True):
        for pair, score in zip(pairs, row, strict=True):
            assert score.logprob == pytest.approx(reference(model, pair.prompt, pair.scored, 32), abs=1e-4)
    assert [s.truncated for s in found[3]] == [True, False]


def many(prefix: int, rows: int) -> list[list[Pair]]:
    """Questions behind the same `prefix` tokens, options of one to three tokens, some of them equal at the start."""
    rng = random.Random(prefix)
    head = [rng.randrange(40) for _ in range(prefix)]
    found = []
    for _ in range(rows):
        prompt = head + [rng.randrange(40) for _ in range(rng.randint(1, 6))]
        found.append([Pair(prompt, [rng.randrange(3) for _ in range(rng.randint(1, 3))]) for _ in range(4)])
    return found


@pytest.mark.parametrize("tokens", [40, 4096])
@pytest.mark.parametrize("fused", [True, False])
def test_a_shared_beginning_is_computed_once_and_changes_nothing(
    model: Any, tokens: int, fused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "FREE_TOKENS", 0)
    if not fused:
        monkeypatch.setattr(attend, "_fused", None)
    requests = many(16, 12) + many(3, 5)
    scorer = Scorer(model, max_length=32, batch_tokens=tokens)
    found = scorer.score(requests)
    assert scorer.tree is True
    for pairs, row in zip(requests, found, strict=True):
        for pair, score in zip(pairs, row, strict=True):
            assert score.logprob == pytest.approx(reference(model, pair.prompt, pair.scored, 32), abs=1e-4)
    alone = Scorer(model, max_length=32)
    alone.tree = False
    alone.score(requests)
    sample = sum(len(p.prompt) + len(p.scored) for pairs in requests[-5:] for p in pairs)
    assert scorer.computed - 2 * sample < alone.computed / 4


def test_runs_with_a_common_beginning_spare_the_most() -> None:
    """Against a recursion: a run is taken whole, or cut where neighbours share least."""

    def spared(shared: list[int], free: tuple[int, int]) -> int:
        return len(shared) * (min(shared) - free[0]) - free[1] if shared else 0

    def best(shared: list[int], free: tuple[int, int]) -> int:
        if not shared:
            return 0
        parts: list[list[int]] = [[]]
        for length in shared:
            if length == min(shared):
                parts.append([])
            else:
                parts[-1].append(length)
        whole = spared(shared, free) if min(shared) else 0
        return max(whole, sum(best(part, free) for part in parts))

    rng = random.Random(0)
    for _ in range(300):
        shared = [rng.choice([0, 1, 2, 5, 9]) for _ in range(rng.randint(0, 9))]
        free = (rng.randint(0, 2), rng.randint(0, 4))
        runs = share._best_runs(shared, free)
        assert sorted(runs) == runs
        assert all(a[1] <= b[0] for a, b in pairwise(runs))
        assert all(min(shared[start : stop - 1]) == length for start, stop, length in runs)
        assert sum(spared(shared[start : stop - 1], free) for start, stop, _ in runs) == best(shared, free)


def test_options_of_a_later_request_are_not_computed_for_an_earlier_one(model: Any) -> None:
    few = [Pair([1, 2, 3], [4, 5]), Pair([1, 2, 3], [6])]
    many = [*few, Pair([1, 2, 3], [7, 8])]
    scorer, alone = Scorer(model, max_length=32), Scorer(model, max_length=32)
    scorer.score([many]), alone.score([many])
    start, begun = scorer.computed, alone.computed
    scorer.known.clear(), alone.known.clear()
    both, one = scorer.score([few, many]), alone.score([many])
    assert scorer.computed - start == alone.computed - begun
    assert both[1] == one[0] and both[0] == one[0][:2]


def test_an_option_is_computed_once_until_the_weights_change(model: Any) -> None:
    import copy

    other = copy.deepcopy(model)
    scorer = Scorer(other, max_length=32)
    first = scorer.score(REQUESTS)
    before = scorer.computed
    assert scorer.score(REQUESTS) == first
    assert scorer.computed == before
    with torch.no_grad():
        other.lm_head.weight.mul_(2)
    again = scorer.score(REQUESTS)
    assert scorer.computed > before
    assert again[0][0].logprob == pytest.approx(reference(other, [1, 2, 3], [4, 5], 32), abs=1e-4)


def test_memory_that_runs_out_halves_the_passes_and_loses_nothing(
    model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    requests = many(8, 40)
    expected = Scorer(model, max_length=32).score(requests)
    scorer = Scorer(model, max_length=32, batch_tokens=512)
    scorer.tree = True

    def full(_: Any, args: Any, settings: dict[str, Any]) -> None:
        if settings["input_ids"].numel() > 200:
            raise torch.OutOfMemoryError

    hook = model.register_forward_pre_hook(full, with_kwargs=True)
    try:
        found = scorer.score(requests)
    finally:
        hook.remove()
    assert scorer.budget.tokens <= 200
    assert "out of memory" in capsys.readouterr().err
    for a, b in zip(expected, found, strict=True):
        assert [x.logprob for x in a] == pytest.approx([x.logprob for x in b], abs=1e-4)


def test_letters_take_one_forward_pass_even_without_sharing(model: Any) -> None:
    scorer = Scorer(model, max_length=32)
    scorer.tree = False
    scorer.score([[Pair([1, 2, 3, 4], [letter]) for letter in (5, 6, 7, 8)]])
    assert scorer.computed == 4


def test_a_model_with_a_window_is_scored_one_by_one() -> None:
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=40, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, sliding_window=4, max_position_embeddings=32,
    )  # fmt: skip
    model = MistralForCausalLM(config).eval()
    scorer = Scorer(model, max_length=32)
    found = scorer.score(REQUESTS[:1])
    assert scorer.tree is False
    for pair, score in zip(REQUESTS[0], found[0], strict=True):
        assert score.logprob == pytest.approx(reference(model, pair.prompt, pair.scored, 32), abs=1e-4)


def test_numbers_that_are_not_finite_are_refused(model: Any) -> None:
    import copy

    broken = copy.deepcopy(model)
    with torch.no_grad():
        broken.lm_head.weight[0, 0] = float("nan")
    with pytest.raises(DataError, match="378"):
        Scorer(broken, max_length=32).score(REQUESTS[:1])


def test_a_shared_beginning_stands_in_the_tree_once() -> None:
    tree = build(0, range(3), [Pair([1, 2], tail) for tail in ([5, 6, 7], [5, 6, 8], [5, 9])])
    assert tree.nodes == [5, 6]
    assert tree.reads == [[-1, 0, 1], [-1, 0, 1], [-1, 0]]
    assert tree.sees([0, 1]).tolist() == [[True, False], [True, True]]


def test_ties_go_to_the_first_and_are_counted() -> None:
    assert metrics.best([-1.0, -1.0]) == 0
    assert metrics.tied([-1.0, -1.00001, -5.0])
    assert not metrics.tied([-1.0, -1.1])


def test_mass_on_true_options_survives_tiny_probabilities() -> None:
    assert metrics.true_mass([-2000.0, -2000.0, -2001.0], [0]) == pytest.approx(1 / (2 + math.exp(-1)))


def test_chance_counts_each_rows_own_options() -> None:
    assert metrics.chance([4, 5, 2], [1, 1, 1]) == pytest.approx((0.25 + 0.2 + 0.5) / 3)


def test_macro_f1_by_hand() -> None:
    # label 0: 1 hit of 2 asked and 1 said -> 2/3; label 1: 1 hit of 1 asked and 2 said -> 2/3
    assert metrics.macro_f1([0, 0, 1], [0, 1, 1]) == pytest.approx(2 / 3)


def test_passes_fit_the_memory_that_is_given(model: Any) -> None:
    wide, narrow = budget.measure(model, memory=1 << 30), budget.measure(model, memory=1 << 18)
    assert wide.tokens == budget.CPU_TOKENS
    assert 0 < narrow.tokens < wide.tokens
    assert narrow.reads < wide.reads
    assert narrow.prefix < wide.prefix
    assert budget.measure(model, batch_tokens=64, memory=1 << 30).tokens == 64
    assert budget.free_bytes(model.device) > 1 << 20
