"""Where operations run: in this process, in others, or on a Ray cluster. What comes back is the same, in order.

A table is the unit of work: what a worker that died had in hand is done again by another, at most three times.
"""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import IO, Any

from tuneloop.console import say, warn
from tuneloop.errors import PrerequisiteError

Op = Callable[[Any], Any]
TRIES = 3
HEADER = struct.Struct("<Q")
# Below this much input, starting workers costs more than they save.
WORTH_WORKERS_BYTES = 16 << 20
RAY_WINDOW = 32  # tables on the cluster at a time: text is never held whole


def choose(name: str, workers: int, input_bytes: int) -> tuple[str, int]:
    """('inline' | 'processes' | 'ray', workers) for what the config asks."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = workers or cores
    if name == "auto":
        name = "processes" if workers > 1 and input_bytes >= WORTH_WORKERS_BYTES else "inline"
    return name, workers


def run(name: str, op: Op, tables: Iterable[Any], workers: int) -> Iterator[Any]:
    """`op` of every table, in order. `op` must be a function that can be pickled, with what it needs bound to it."""
    if name == "ray":
        return _ray(op, tables)
    if name == "processes":
        return _processes(op, tables, workers)
    return map(op, tables)


def _processes(op: Op, tables: Iterable[Any], workers: int) -> Iterator[Any]:
    own = threading.local()
    started: list[_Worker] = []
    packed = pickle.dumps(op, protocol=5)

    def work(table: Any) -> Any:
        for attempt in range(TRIES):
            worker: _Worker | None = getattr(own, "worker", None)
            if worker is None:
                worker = own.worker = _Worker(packed)
                started.append(worker)
            try:
                return worker.ask(table)
            except (EOFError, BrokenPipeError, OSError):
                own.worker = None
                warn(f"a worker died (exit {worker.close()}); its rows go to a new one, try {attempt + 2} of {TRIES}")
        raise PrerequisiteError(
            282, f"workers died {TRIES} times on the same rows", where="data.executor", expected="room for one shard",
            cure="free memory, or run with --set data.executor=inline to see why; the same command resumes",
        )  # fmt: skip

    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from _in_order(pool, work, tables, 2 * workers)
        finally:
            for worker in started:
                worker.close()


def _in_order(pool: ThreadPoolExecutor, work: Op, tables: Iterable[Any], ahead: int) -> Iterator[Any]:
    source = iter(tables)
    waiting: deque[Future[Any]] = deque(pool.submit(work, table) for table in islice(source, ahead))
    try:
        while waiting:
            done = waiting.popleft().result()
            for table in islice(source, 1):
                waiting.append(pool.submit(work, table))
            yield done
    finally:
        for future in waiting:
            future.cancel()


class _Worker:
    """A Python of its own that answers tables over its pipes; it needs no `if __name__ == "__main__"` of the caller."""

    def __init__(self, packed: bytes) -> None:
        # One thread each: the workers themselves are what runs side by side.
        one = dict.fromkeys(("OMP_NUM_THREADS", "RAYON_NUM_THREADS"), "1")
        env = {
            **os.environ,
            **one,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "TOKENIZERS_PARALLELISM": "false",
        }
        command = [sys.executable, "-m", "tuneloop.data.worker"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self.packed: bytes | None = packed

    def ask(self, table: Any) -> Any:
        assert self.process.stdin is not None and self.process.stdout is not None
        if self.packed is not None:
            send(self.process.stdin, self.packed)
            self.packed = None
        send(self.process.stdin, pickle.dumps(table, protocol=5))
        fine, value = pickle.loads(receive(self.process.stdout))
        if not fine:
            raise value
        return value

    def close(self) -> int | None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:
                    continue
        try:
            return self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


def send(pipe: IO[bytes], data: bytes) -> None:
    pipe.write(HEADER.pack(len(data)))
    pipe.write(data)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    head = pipe.read(HEADER.size)
    if len(head) < HEADER.size:
        raise EOFError
    (size,) = HEADER.unpack(head)
    data = pipe.read(size)
    if len(data) < size:
        raise EOFError
    return data


def _ray(op: Op, tables: Iterable[Any]) -> Iterator[Any]:
    """Windows of tables through Ray Data; Ray starts tasks again that a lost worker or node had in hand."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise PrerequisiteError(
            283, "the rows are to be prepared on Ray, but ray is not installed", where="data.executor",
            expected="the package ray[data]", cure='pip install "tuneloop[scale]"',
        ) from error  # fmt: skip
    started = not ray.is_initialized()
    if started:
        ray.init(
            log_to_driver=False,
            include_dashboard=False,
            runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}},
        )
    cluster: Any = ray
    say(f"ray: {len(cluster.nodes())} nodes, {cluster.cluster_resources().get('CPU', 0):.0f} CPUs")
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    source = iter(tables)
    try:
        while window := list(islice(source, RAY_WINDOW)):
            found = ray.data.from_arrow(window).map_batches(
                op, batch_format="pyarrow", batch_size=None, zero_copy_batch=True
            )
            yield from _whole_shards(found.iter_batches(batch_size=None, batch_format="pyarrow"))
    finally:
        if started:
            ray.shutdown()


def _whole_shards(tables: Iterable[Any]) -> Iterator[Any]:
    """One table a shard again: Ray may cut or join blocks on the way, but keeps the order of rows."""
    import pyarrow as pa
    import pyarrow.compute as pc

    held: list[Any] = []
    for table in tables:
        for shard in pc.unique(table["shard"]).to_pylist():
            piece = table.filter(pc.equal(table["shard"], shard))
            if held and held[0]["shard"][0].as_py() != shard:
                yield pa.concat_tables(held).combine_chunks()
                held = []
            held.append(piece)
    if held:
        yield pa.concat_tables(held).combine_chunks()
