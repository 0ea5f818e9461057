from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tuneloop import store
from tuneloop.errors import PrerequisiteError, UsageError
from tuneloop.records import Example, Rejected, read_examples, read_rejected, write_examples, write_rejected


def _open(folder: Path, **config: object):
    return store.open_run(folder, stage="data", config=config, inputs={"source": "hub/name"})


def test_run_goes_from_new_to_resume_to_done(tmp_path: Path) -> None:
    with _open(tmp_path / "r", a=1) as run:
        assert run.state == "new"
    with _open(tmp_path / "r", a=1) as run:
        assert run.state == "resume"
        (run.path / "x.txt").write_text("x")
        manifest = run.finish(counts={"train": 1})
    assert manifest["files"]["x.txt"] == store.sha256_text("x")
    with _open(tmp_path / "r", a=1) as run:
        assert run.state == "done"
    assert store.require_run(tmp_path / "r", "data")["counts"] == {"train": 1}


def test_another_key_is_refused_until_overwrite(tmp_path: Path) -> None:
    with _open(tmp_path / "r", a=1) as run:
        (run.path / "x.txt").write_text("x")
        run.finish()
    with pytest.raises(UsageError, match="another run"), _open(tmp_path / "r", a=2):
        pass
    assert (tmp_path / "r" / "x.txt").is_file()
    with store.open_run(tmp_path / "r", stage="data", config={"a": 2}, inputs={}, overwrite=True) as run:
        assert run.state == "new"
        assert not (run.path / "x.txt").exists()


def test_settings_that_cannot_change_a_result_are_not_in_the_key() -> None:
    assert store.run_key("train", 1, {"seed": 0, "save_steps": 1}, {}) == store.run_key("train", 1, {"seed": 0}, {})
    one, two = ({"train": {"seed": 0, "devices": n}} for n in (1, 2))
    assert store.run_key("train", 1, one, {}) == store.run_key("train", 1, two, {})
    assert store.run_key("train", 1, {"seed": 0}, {}) != store.run_key("train", 1, {"seed": 1}, {})
    assert store.run_key("train", 1, {}, {}) != store.run_key("train", 2, {}, {})


def test_changed_input_changes_the_hash(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("1")
    first = store.input_hash(tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_text("2")
    assert store.input_hash(tmp_path / "a.jsonl") != first


def test_foreign_files_are_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"thesis\.txt"), _open(tmp_path):
        pass


def test_second_writer_is_refused(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom tuneloop.store import open_run\n"
        f"with open_run({str(tmp_path / 'r')!r}, stage='data', config={{}}, inputs={{'source': 'hub/name'}}):\n"
        "    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "held"
    with pytest.raises(UsageError, match="another process"), _open(tmp_path / "r"):
        pass
    holder.kill()
    holder.communicate()
    with _open(tmp_path / "r") as run:
        assert run.state in ("new", "resume", "done")


def test_full_disk_is_a_coded_error_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    store.write_text(tmp_path / "a.json", "old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(PrerequisiteError, match="disk is full") as caught:
        store.write_text(tmp_path / "a.json", "new")
    assert caught.value.exit_code == 3
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_append_to_a_full_device() -> None:
    with pytest.raises(PrerequisiteError, match="disk is full"):
        store.append_jsonl("/dev/full", {"a": "x" * 10000})


def test_require_run_says_what_the_folder_is(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a 'model' folder"):
        store.require_run(tmp_path, "model")
    with _open(tmp_path / "r"):
        pass
    with pytest.raises(UsageError, match="unfinished"):
        store.require_run(tmp_path / "r", "data")
    with pytest.raises(UsageError, match="a 'data' folder"):
        store.require_run(tmp_path / "r", "model")


def test_jsonl_cut_by_a_kill_reads_to_the_last_whole_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    store.append_jsonl(path, {"step": 1})
    with open(path, "a") as file:
        file.write('{"step": 2, "lo')
    assert store.read_jsonl(path) == [{"step": 1}]


def test_records_survive_the_disk(tmp_path: Path) -> None:
    examples = [
        Example(id="a", messages=[{"role": "user", "content": "h\u00e9 \U0001f600"}], meta={"n": 1, "deep": [None]}),
        Example(id="b", kind="text", text="", flags=["short"], parents=["a"], weight=0.5),
        Example(id="c", kind="completion", prompt="p", completion=" c", source={"uri": "f", "line": 3}),
    ]
    write_examples(tmp_path, "train", examples)
    assert read_examples(tmp_path, "train") == examples
    assert read_examples(tmp_path, "valid") == []
    rejected = [Rejected("broken JSON", line=7, raw="{")]
    write_rejected(tmp_path, rejected)
    assert read_rejected(tmp_path) == rejected
