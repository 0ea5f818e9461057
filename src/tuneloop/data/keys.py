"""What is known of every row while its text stands on disk: some numbers a row, in order of reading.

N rows (kept and refused alike)
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from tuneloop.data.ops import KEYS
from tuneloop.neighbours.minhash import BANDS, GramFile

COUNTED = ("vocabulary", "cleaned", "format")
NUMBERS = [f"k_{name}" for name in KEYS]


class Keys:
    """The columns of `ops.KEYS` as arrays [N], `ok` [N], and on disk what is read when it is wanted: bands, grams."""

    def __init__(self, folder: Path, shards: list[Path]) -> None:
        self.folder, self.shards = folder, shards
        self.sizes = [_rows(path) for path in shards]
        self.count = sum(self.sizes)
        self.columns: dict[str, NDArray[Any]] = {n: np.zeros(self.count, kind) for n, kind in KEYS.items()}
        self.ok = np.zeros(self.count, bool)
        # Only generated rows have parents: row -> their ids.
        self.parents: dict[int, list[int]] = {}
        self.uris: list[str] = []
        self.vocabulary: set[int] = set()  # token ids met
        self.cleaned: Counter[str] = Counter()
        self.formats: dict[int, Counter[str]] = {}  # part -> rows of each format
        self.grams = GramFile(folder / "grams.u32")
        self.grams.write(self._load())

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.columns[name]

    def _load(self) -> Iterator[tuple[Any, Any]]:
        """Fills the columns shard by shard and hands on the grams of each."""
        with ExitStack() as open_files:
            files = [open_files.enter_context(open(self.folder / f"band-{b}.u32", "wb")) for b in range(BANDS)]
            yield from self._load_into(files)

    def _load_into(self, files: Sequence[IO[bytes]]) -> Iterator[tuple[Any, Any]]:
        start = 0
        for path in self.shards:
            table = read_shard(path, [*NUMBERS, "r_reason", "bands", "grams", "ancestors", *COUNTED])
            stop = start + len(table)
            for name in KEYS:
                self.columns[name][start:stop] = table[f"k_{name}"].to_numpy()
            self.ok[start:stop] = table["r_reason"].is_null().to_numpy()
            for row in np.flatnonzero(table["ancestors"].is_valid().to_numpy()).tolist():
                self.parents[start + row] = table["ancestors"][row].as_py()
            self._count(table, start)
            for band, column in enumerate(_bands(table["bands"], len(table))):
                column.tofile(files[band])
            yield _grams(table["grams"])
            start = stop

    def _count(self, table: Any, start: int) -> None:
        for value in table["vocabulary"].drop_null().to_pylist():
            self.vocabulary.update(np.frombuffer(value, np.uint32).tolist())
        for value in table["cleaned"].drop_null().to_pylist():
            self.cleaned.update(json.loads(value))
        part = int(self.columns["part"][start]) if len(table) else 0
        names = [name for name in table["format"].to_pylist() if name]
        self.formats.setdefault(part, Counter()).update(names)

    def band(self, number: int) -> NDArray[np.uint32]:
        """[N] keys of one band; 0 for rows without."""
        return np.fromfile(self.folder / f"band-{number}.u32", np.uint32)

    def starts(self) -> list[int]:
        """The first row of each shard, and the end."""
        return [0, *np.cumsum(self.sizes).tolist()]


def read_shard(path: Path, columns: list[str]) -> Any:
    """Some columns of a shard, its others left on disk."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        schema = pa.ipc.open_file(source).schema
        options = pa.ipc.IpcReadOptions(included_fields=[schema.get_field_index(name) for name in columns])
        table = pa.ipc.open_file(source, options=options).read_all()
        # What is kept must not hold on to the pages of the file.
        return pa.table({name: _copied(table[name]) for name in columns})


def _copied(column: Any) -> Any:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    batch = pa.table({"x": column})
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_table(batch)
    return pa.ipc.open_stream(sink.getvalue()).read_all()["x"]


def _rows(path: Path) -> int:
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        file = pa.ipc.open_file(source)
        return sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))


def _bands(column: Any, count: int) -> NDArray[np.uint32]:
    """[25, rows]."""
    out = np.zeros((count, BANDS), np.uint32)
    held = np.flatnonzero(column.is_valid().to_numpy())
    data = b"".join(column.drop_null().to_pylist())
    out[held] = np.frombuffer(data, np.uint32).reshape(len(held), BANDS)
    return np.ascontiguousarray(out.T)


def _grams(column: Any) -> tuple[Any, Any]:
    sizes, pieces = [], []
    for value in column.to_pylist():
        sizes.append(len(value or b"") // 4)
        pieces.append(value or b"")
    return np.frombuffer(b"".join(pieces), np.uint32), np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
