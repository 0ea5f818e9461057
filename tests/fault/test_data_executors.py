"""The same files whatever runs the operations, and whatever is killed on the way."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tuneloop.config import DataConfig
from tuneloop.data import prepare
from tuneloop.data.executors import TRIES, choose
from tuneloop.errors import PrerequisiteError
from tuneloop.store import read_json
from tuneloop.text import key


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of several shards, with everything that is decided between rows."""
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    held: list[str] = []
    for i in range(7000):
        question = " ".join(key(f"{i}/{j}")[:8] for j in range(rng.randint(3, 9)))
        if i % 50 == 1:
            question = json.loads(held[-1])["question"] + "?"
        row = {"question": question, "answer": "same" if i % 50 < 2 else str(i), "doc": i // 10}
        held.append(held[-1] if i % 70 == 5 else "{broken" if i % 900 == 8 else json.dumps(row))
    path.write_text("\n".join(held) + "\n", encoding="utf-8")
    return path


def config(rows: Path, **more: Any) -> DataConfig:
    return DataConfig(source=[str(rows)], group="doc", **more)


def files(out: Path) -> dict[str, str]:
    manifest = read_json(out / "manifest.json")
    assert manifest["counts"]["rows_in"] == manifest["counts"]["kept"] + manifest["counts"]["rejected"] == 7000
    assert {"duplicate", "near_duplicate", "broken_json"} <= set(manifest["counts"]["reasons"])
    found: dict[str, str] = manifest["files"]
    return {name: digest for name, digest in found.items() if name != "run.json"}


@pytest.fixture(scope="module")
def inline(rows: Path) -> dict[str, str]:
    """The files of a straight run in one process."""
    return files(prepare(config(rows, executor="inline"), rows.parent / "inline"))


def test_processes_write_the_files_of_one_process(rows: Path, inline: dict[str, str], tmp_path: Path) -> None:
    two = files(prepare(config(rows, executor="processes", num_workers=2), tmp_path / "two"))
    assert inline == two and len(inline) >= 5


def test_a_killed_worker_loses_nothing(
    rows: Path, inline: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed: list[int] = []

    def hunt() -> None:
        while not killed:
            for child in psutil.Process().children():
                # The first answer is there, so the worker is at work.
                if "tuneloop.data.worker" in " ".join(child.cmdline()) and list(
                    (tmp_path / "two" / ".work").glob("shard*")
                ):
                    os.kill(child.pid, signal.SIGKILL)
                    killed.append(child.pid)
                    return
            time.sleep(0.002)

    hunter = threading.Thread(target=hunt, daemon=True)
    hunter.start()
    two = files(prepare(config(rows, executor="processes", num_workers=1), tmp_path / "two"))
    hunter.join(5)
    assert killed and two == inline
    assert "a worker died (exit -9)" in capsys.readouterr().err


def test_workers_that_always_die_are_an_error_with_a_cure(
    rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(PrerequisiteError) as error:
        prepare(config(rows, executor="processes", num_workers=1), tmp_path / "out")
    assert error.value.number == 282 and str(TRIES) in error.value.what and "inline" in error.value.cure


def test_small_input_starts_no_workers() -> None:
    assert choose("auto", 4, 1000) == ("inline", 4)
    assert choose("auto", 4, 1 << 30) == ("processes", 4)
    assert choose("inline", 4, 1 << 30) == ("inline", 4)


@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_killed_run_goes_on_and_writes_the_same_files(
    rows: Path, inline: dict[str, str], tmp_path: Path, after: int
) -> None:
    """kill -9 once `after` shards stand there (0: at once), then the same command again."""
    out = tmp_path / "out"
    command = [sys.executable, "-m", "tuneloop", "data", str(rows), "--out", str(out), "--quiet"]
    command += ["--set", "data.group=doc", "--set", "data.executor=inline"]
    process = subprocess.Popen(command)
    while process.poll() is None and len(list(out.glob(".work/shard-*.arrow"))) < max(after, 1):
        time.sleep(0.001)
    process.kill()
    process.wait()
    assert not (out / "manifest.json").exists()
    done = len(list(out.glob(".work/shard-*.arrow")))
    assert done >= min(after, 1)
    again = subprocess.run(command, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert files(out) == inline
    assert not list(out.rglob(".*.tmp")) and not (out / ".work").exists()


STARTS = 3


def two_nodes() -> Any:
    """A local cluster of two nodes. Its nodes give their helpers 15 s to start, which a busy machine may not."""
    from ray.cluster_utils import Cluster

    node = {"num_cpus": 1, "object_store_memory": 100 << 20}
    for attempt in range(STARTS):
        cluster: Any = None
        try:
            cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
            cluster.add_node(**node)
            return cluster
        except Exception as error:  # ray raises a bare one here
            if "timed out during startup" not in str(error) or attempt + 1 == STARTS:
                raise
            if cluster is not None:
                cluster.shutdown()
    raise AssertionError


def test_ray_on_two_nodes_writes_the_same_files_although_a_worker_is_killed(
    rows: Path, inline: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray

    path = os.pathsep.join(filter(None, sys.path))
    monkeypatch.setenv("PYTHONPATH", path)
    cluster = two_nodes()
    try:
        ray.init(address=cluster.address, log_to_driver=False, runtime_env={"env_vars": {"PYTHONPATH": path}})
        assert len([node for node in ray.nodes() if node["Alive"]]) == 2
        killed: list[int] = []
        watched = tmp_path / "ray" / ".work"

        def hunt() -> None:
            """Kills a worker that runs a task of Ray Data."""
            while not killed:
                for process in psutil.process_iter(["cmdline"]):
                    name = " ".join(process.info["cmdline"] or [])
                    if "ray::" in name and "MapBatches" in name and not killed:
                        os.kill(process.pid, signal.SIGKILL)
                        killed.append(process.pid)
                if watched.parent.joinpath("manifest.json").exists():
                    return
                time.sleep(0.002)

        hunter = threading.Thread(target=hunt, daemon=True)
        hunter.start()
        found = files(prepare(config(rows, executor="ray"), tmp_path / "ray"))
        hunter.join(10)
        assert found == inline
        assert killed
    finally:
        ray.shutdown()
        cluster.shutdown()
