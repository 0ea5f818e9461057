"""The journal of a generation run: one JSON object a line, appended, so that it can be read while the run goes on.

    {"call": key, "state": "pending", "template": ..., "ask": {...}}      before the call is sent
    {"call": key, "state": "waiting", "kind": ..., "what": ...}           it came back without an answer; tried again
    {"call": key, "state": "pending", "try": 2}
    {"call": key, "state": "ok", "text": ..., "finish": ..., "in": n, "out": n}
    {"call": key, "state": "failed", "kind": ..., "what": ..., "raw": ...}
    {"candidate": i, "state": "accepted" | "dropped" | "failed", ...}     the fate of what was made of the answers
    {"session": n, ...}                                                  a start of the program

A line is one write to a file opened for appending: it is whole, or it is the torn last line of a kill, which is read
over. It reaches the system at once, so it outlives the process; the disk is asked to keep it (fsync) at most once a
second and at the end, so a power cut may cost the last second of answers, which are then asked for again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneloop.lm.asking import TRANSIENT, Answer, Failed
from tuneloop.store import disk_error

SYNC_SECONDS = 1.0


class Journal:
    """Answers and failures of earlier sessions by request key, and the file that new ones are appended to.

    `answers` are final. So are failures, but for transient ones that no answer followed: those were the server's end,
    not the request's, and are tried again. `unfinished` are calls that were sent and never came back, which
    those that wait for another try are not.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.answers: dict[str, Answer] = {}
        self.failures: dict[str, Failed] = {}
        self.unfinished: set[str] = set()
        self.candidates: dict[int, dict[str, Any]] = {}
        self.sessions = 0
        recent: dict[str, Failed] = {}
        for line in read(path):
            self._load(line, recent)
        try:
            self._file = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        except OSError as error:
            raise disk_error(error, path) from error
        self._mend_tail()
        self._synced = time.monotonic()
        self.append({"session": self.sessions, "pid": os.getpid(), "time": round(time.time(), 3)})

    def _load(self, line: dict[str, Any], recent: dict[str, Failed]) -> None:
        if "session" in line:
            self.sessions += 1
        elif "candidate" in line:
            self.candidates[line["candidate"]] = line
        elif line["state"] == "pending":
            self.unfinished.add(line["call"])
        elif line["state"] == "ok":
            self.answers[line["call"]] = _answer(line)
            self.unfinished.discard(line["call"])
            self.failures.update(recent)
            recent.clear()
        elif line["state"] == "waiting":
            self.unfinished.discard(line["call"])
        else:
            found = Failed(line["kind"], line["what"], raw=line.get("raw", ""))
            self.unfinished.discard(line["call"])
            (recent if line["kind"] in TRANSIENT else self.failures)[line["call"]] = found

    def _mend_tail(self) -> None:
        """A torn last line gets its end, so that the next record starts on a line of its own."""
        if os.fstat(self._file).st_size:
            os.lseek(self._file, -1, os.SEEK_END)
            if os.read(self._file, 1) != b"\n":
                self._write(b"\n")

    def pending(self, key: str, template: str, ask: dict[str, Any]) -> None:
        self.append({"call": key, "state": "pending", "template": template, "ask": ask})

    def waiting(self, key: str, failure: Failed) -> None:
        self.append({"call": key, "state": "waiting", "kind": failure.kind, "what": failure.what})

    def pending_again(self, key: str, attempt: int) -> None:
        self.append({"call": key, "state": "pending", "try": attempt})

    def ok(self, key: str, answer: Answer) -> None:
        self.answers[key] = answer
        line: dict[str, Any] = {"call": key, "state": "ok", "text": answer.text, "finish": answer.finish}
        line |= {"in": answer.prompt_tokens, "out": answer.completion_tokens}
        if answer.logprobs is not None:
            line["logprobs"] = list(answer.logprobs)
        self.append(line)

    def failed(self, key: str, failure: Failed) -> None:
        self.failures[key] = failure
        raw = failure.raw[:2000]
        self.append({"call": key, "state": "failed", "kind": failure.kind, "what": failure.what, "raw": raw})

    def candidate(self, index: int, state: str, **more: Any) -> None:
        """Once for each candidate: a resumed run that comes to the same end does not write it again."""
        line = {"candidate": index, "state": state, **more}
        if self.candidates.get(index) != line:
            self.candidates[index] = line
            self.append(line)

    def append(self, line: dict[str, Any]) -> None:
        self._write(json.dumps(line, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace") + b"\n")
        if time.monotonic() - self._synced > SYNC_SECONDS:
            os.fsync(self._file)
            self._synced = time.monotonic()

    def _write(self, data: bytes) -> None:
        try:
            written = os.write(self._file, data)
            while written < len(data):  # a signal or a nearly full disk can cut a write short
                written += os.write(self._file, data[written:])
        except OSError as error:
            raise disk_error(error, self.path) from error

    def close(self) -> None:
        os.fsync(self._file)
        os.close(self._file)


def _answer(line: dict[str, Any]) -> Answer:
    logprobs = tuple(line["logprobs"]) if "logprobs" in line else None
    return Answer(line["text"], line["finish"], line["in"], line["out"], logprobs)


def read(path: Path) -> Iterator[dict[str, Any]]:
    """The whole lines of a journal, also one that is being written; none where there is no file."""
    if not path.is_file():
        return
    with open(path, "rb") as file:
        for line in file:
            try:
                value = json.loads(line)
            except ValueError:
                continue  # torn by a kill
            if isinstance(value, dict):
                yield value
