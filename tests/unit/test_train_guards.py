"""What is refused or warned about before the first step."""

from __future__ import annotations

import pytest
import torch
from tests.recipe.tiny import tiny_model, tiny_tokenizer

from tuneloop.config import TrainConfig
from tuneloop.errors import PartialError, UsageError
from tuneloop.train import guards
from tuneloop.train.batch import Item
from tuneloop.train.distributed import check_together
from tuneloop.train.guards import PATIENCE, Explosion, check


def codes(items: list[Item], rate: float = 1e-3, **changes: str) -> list[str]:
    tokenizer = tiny_tokenizer()
    for name, value in changes.items():
        setattr(tokenizer, name, value)
    return [w.code for w in check(tiny_model(), tokenizer, items, rate, 1e-3)]


def item(ids: list[int], trained: list[bool]) -> Item:
    return Item("a", ids, trained, 1.0)


GOOD = item([5, 6, 2], [False, True, True])  # 2 is the end token


def test_a_sound_run_has_no_warning() -> None:
    assert codes([GOOD]) == []


def test_end_token_that_is_never_trained() -> None:
    assert codes([item([5, 6, 2], [False, True, False])]) == ["TL-352"]


def test_padding_by_the_end_token() -> None:
    assert codes([GOOD], pad_token="</s>") == ["TL-247"]


@pytest.mark.parametrize("rate", [2e-2, 5e-5])
def test_learning_rate_far_off(rate: float) -> None:
    assert codes([GOOD], rate=rate) == ["TL-248"]


@pytest.mark.parametrize(
    ("native", "dtype", "expected"),
    [
        (False, torch.bfloat16, ["TL-255"]),
        (True, torch.bfloat16, []),
        (False, torch.float32, []),
    ],
)
def test_bfloat16_that_the_processor_does_not_have(
    native: bool, dtype: torch.dtype, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guards, "native_bfloat16", lambda: native)
    found = check(tiny_model().to(dtype), tiny_tokenizer(), [GOOD], 1e-3, 1e-3)
    assert [warning.code for warning in found] == expected


def test_vocabulary_that_is_not_the_models() -> None:
    with pytest.raises(UsageError, match="TL-246"):
        codes([item([5, 64, 2], [False, True, True])])


def test_exploded_loss_stops_and_a_spike_does_not() -> None:
    guard = Explosion(vocabulary=64)
    for step, loss in enumerate([4.0, 4.1, 4.2, 30.0, 3.0, *[20.0] * (PATIENCE - 1), 4.0]):
        guard.see(loss, step, "here")
    for step in range(PATIENCE - 1):
        guard.see(20.0, step, "here")
    with pytest.raises(PartialError, match="TL-421"):
        guard.see(20.0, PATIENCE - 1, "here")


def test_settings_that_do_nothing_are_named() -> None:
    def named(processes: int = 1, valid: bool = True, **settings: object) -> list[str]:
        return [w.where for w in guards.unused(TrainConfig.model_validate(settings), processes, valid)]

    assert named() == [] and named(method="full", dtype="bfloat16", bf16_update="stochastic") == []
    assert named(method="full", merge=True, use_dora=True) == ["train.merge", "train.use_dora"]
    assert named(parallel="fsdp") == ["train.parallel"] and named(2, parallel="fsdp") == []
    assert named(bf16_update="stochastic") == ["train.bf16_update"]
    assert named(objective="orpo", label_smoothing_factor=0.1) == ["train.label_smoothing_factor"]
    assert named(valid=False, early_stopping_patience=1, eval_samples=2) == [
        "train.eval_samples",
        "train.early_stopping_patience",
    ]


def test_what_several_processes_cannot_do_is_refused() -> None:
    for config in (TrainConfig(bf16_update="stochastic"), TrainConfig(objective="reward", parallel="fsdp")):
        check_together(config, 1)
        with pytest.raises(UsageError, match="TL-244"):
            check_together(config, 2)
