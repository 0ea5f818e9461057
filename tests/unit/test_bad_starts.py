"""Mistakes at the start of a run: named before any work, and never in the way of their own cure."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from tuneloop.config import LoopConfig
from tuneloop.errors import DataError, PrerequisiteError, UsageError
from tuneloop.llama import BasicModelRunner
from tuneloop.loop import check_tasks
from tuneloop.models import load_model, load_tokenizer
from tuneloop.store import disk_error, open_run, read_jsonl, saving


def test_a_start_that_failed_gives_way_to_the_mended_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), open_run(tmp_path, stage="model", config={"a": 1}, inputs={}):
        raise ValueError("stop")
    with open_run(tmp_path, stage="model", config={"a": 2}, inputs={}) as run:
        assert run.state == "new"
        (tmp_path / "log.jsonl").write_text("{}\n")
    with pytest.raises(UsageError, match="another run"), open_run(tmp_path, stage="model", config={"a": 3}, inputs={}):
        pass


def test_an_adapter_with_pickled_weights_is_refused_whatever_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "world", "peft_type": "LORA"}))
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80\x04")
    (tmp_path / "stray.safetensors").write_bytes(b"")
    with pytest.raises(PrerequisiteError, match="pickled"):
        load_model(str(tmp_path))


def test_an_unknown_task_is_named_before_anything_starts() -> None:
    config = LoopConfig.model_validate({"eval": {"tasks": ["arc_eazy"]}})
    with pytest.raises(UsageError, match="arc_eazy"):
        check_tasks(config.eval)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EACCES, errno.ENOTDIR])
def test_what_the_disk_refuses_is_coded(tmp_path: Path, number: int) -> None:
    assert isinstance(disk_error(OSError(number, "x"), tmp_path / "f"), PrerequisiteError)
    with pytest.raises(PrerequisiteError), saving(tmp_path / "f"):
        raise OSError(number, "x")


def test_a_line_may_hold_a_line_separator(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"a": "x\u2028y"}\n{"a": 2}\n{"a"', encoding="utf-8")
    assert [row["a"] for row in read_jsonl(tmp_path / "log.jsonl")] == ["x\u2028y", 2]


def test_the_course_api_reads_what_the_data_stage_reads_and_names_what_it_cannot(tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_bytes(b'\xef\xbb\xbf{"q": "a\xe2\x80\xa8b", "a": 4}\n\n{"q": "c", "a": "d"}\n')
    model = BasicModelRunner(folder=tmp_path / "runs")
    model.load_data_from_jsonlines(str(rows), input_key="q", output_key="a")
    assert model.data == [{"input": "a\u2028b", "output": "4"}, {"input": "c", "output": "d"}]
    for text in (b'{"q": "caf\xe9", "a": "x"}\n', b'{"q": "x"}\n', b'{"q": "x", "a": ""}\n'):
        rows.write_bytes(text)
        with pytest.raises(DataError, match="rows.jsonl:1"):
            model.load_data_from_jsonlines(str(rows), input_key="q", output_key="a")
    rows.write_bytes(b"")
    with pytest.raises(DataError, match="no rows"):
        model.load_data_from_jsonlines(str(rows))


def test_the_course_api_reports_a_mistyped_setting_as_a_config_error(tmp_path: Path) -> None:
    model = BasicModelRunner(folder=tmp_path)
    model.load_data([{"input": str(i), "output": str(i)} for i in range(20)])
    with pytest.raises(UsageError, match="learning_rate"):
        model.train(learning_rat=1e-3, is_public=True)


def test_a_revision_is_asked_of_the_hub_and_not_of_a_folder(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import AutoTokenizer

    asked: list[object] = []
    monkeypatch.setattr(AutoTokenizer, "from_pretrained", lambda name, **settings: asked.append(settings["revision"]))
    load_tokenizer("owner/name", revision="v2")
    assert asked == ["v2"]
    monkeypatch.undo()
    load_tokenizer("world", revision="v2")
    assert "revision v2 is of the hub" in capsys.readouterr().err
