"""Every invariant on a small model, and a broken one is called broken."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.recipe.tiny import tiny_data, tiny_folder

from tuneloop import doctor
from tuneloop.config import ModelConfig, TrainConfig
from tuneloop.errors import DataError, UsageError
from tuneloop.records import Example
from tuneloop.train.plan import setting

pytestmark = pytest.mark.usefixtures("one_thread")


def test_all_hold_on_a_small_model(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "base")
    words = [f"w{i}" for i in range(12)]
    rows = [
        Example(
            id=f"c{i}",
            messages=[{"role": "user", "content": f"{w} w1"}, {"role": "assistant", "content": f"{w} w3 w{i}"}],
        )
        for i, w in enumerate(words)
    ]
    tiny_data(tmp_path / "data", rows)
    end = "(' ' + eos_token if m['role'] == 'assistant' else ' ')"
    template = "{%- for m in messages %}{{ m['content'] + " + end + " }}{%- endfor %}"
    checks = doctor.doctor(ModelConfig(name=str(tmp_path / "base"), template=template), tmp_path / "data")
    assert {check.invariant for check in checks} == {2, 3, 4, 5, 6, 10}
    assert doctor.broken(checks) == 0, "\n".join(doctor.lines(checks))
    measured = [c for c in checks if c.state == "holds"]
    assert all(c.measured and c.tolerance for c in measured)
    assert len([c for c in measured if c.invariant == 3]) == 4
    assert all(len(line) <= 100 for line in doctor.lines(checks))


def test_a_broken_step_is_called_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The classic fault: each pass divides by its own tokens, so accumulation changes the gradient."""
    import dataclasses

    from tuneloop.config import TrainConfig
    from tuneloop.train.distributed import World
    from tuneloop.train.run import prepare

    tiny_folder(tmp_path / "base")
    tiny_data(tmp_path / "data")
    config = TrainConfig(method="full", per_device_train_batch_size=4)
    trainer, _ = prepare(config, ModelConfig(name=str(tmp_path / "base")), tmp_path / "data", tmp_path, World())
    right: Any = trainer.objective.outcome

    def wrong(model: Any, layout: Any, items: Any) -> Any:
        found = right(model, layout, items)
        return dataclasses.replace(found, total=found.total / len(items))

    trainer.objective = dataclasses.replace(trainer.objective, outcome=wrong)
    assert {c.state for c in doctor._layouts(trainer)} == {"BROKEN", "holds"}


def test_a_folder_that_holds_no_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="TL-115"):
        doctor.doctor(ModelConfig(name="world"), tmp_path / "nowhere")


def test_a_plan_for_rows_that_do_not_serve_names_no_file_that_is_not_there(tmp_path: Path) -> None:
    tiny_folder(tmp_path / "base")
    tiny_data(tmp_path / "data", [Example(id="a", kind="completion", prompt="w1", completion=" w2")])
    with pytest.raises(DataError, match="TL-350") as caught:
        setting(TrainConfig(objective="dpo"), ModelConfig(name=str(tmp_path / "base")), tmp_path / "data")
    assert "null" not in str(caught.value) and "dropped" not in str(caught.value)
