"""What a process keeps of the memory it once had: malloc's heap, with its gaps, played through without a byte in it.

Blocks come and go in the order of a training step. A freed block joins its free neighbours; a new one takes the
smallest gap that fits and splits it, else the heap grows at its end. So it is with glibc once large blocks come from
the heap too (`fuse.keep_memory`), and what the heap once held stays resident.
"""

from __future__ import annotations

from bisect import bisect_left, insort

LINE = 64  # torch asks for blocks on cache lines
HEAD = 16  # malloc's own bytes before a block


class Heap:
    """`highest`: the most bytes between start and end of the heap so far."""

    def __init__(self) -> None:
        self.end = self.highest = 0
        self.held: dict[int, tuple[int, int]] = {}  # key -> (start, size)
        self.gaps: list[tuple[int, int]] = []  # (size, start), sorted
        self.by_start: dict[int, int] = {}  # start of a gap -> its size
        self.by_end: dict[int, int] = {}  # end of a gap -> its start

    def take(self, key: int, count: int) -> None:
        size = -(-(count + HEAD) // LINE) * LINE
        place = bisect_left(self.gaps, (size, 0))
        if place < len(self.gaps):
            found, start = self.gaps[place]
            self._close(start, found)
            if found > size:
                self._open(start + size, found - size)
        else:
            start = self.end
            self.end += size
            self.highest = max(self.highest, self.end)
        self.held[key] = (start, size)

    def give(self, key: int) -> None:
        start, size = self.held.pop(key)
        if start + size in self.by_start:
            after = self.by_start[start + size]
            self._close(start + size, after)
            size += after
        if start in self.by_end:
            before = self.by_end[start]
            self._close(before, start - before)
            start, size = before, size + start - before
        if start + size == self.end:
            self.end = start
        else:
            self._open(start, size)

    def _open(self, start: int, size: int) -> None:
        insort(self.gaps, (size, start))
        self.by_start[start], self.by_end[start + size] = size, start

    def _close(self, start: int, size: int) -> None:
        self.gaps.pop(bisect_left(self.gaps, (size, start)))
        del self.by_start[start], self.by_end[start + size]
