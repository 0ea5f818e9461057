"""A server of chat completions that misbehaves on purpose, in a process of its own: `python tests/faulty.py --help`.

What it does to a request depends on the request's body, a seed, and how often it has seen that body, so that two runs
against two fresh servers meet the same faults. Every request and every whole answer is appended to a log with the
request's idempotency key: what the client really asked, as the other side saw it.

Faults: 429 with Retry-After, 500, 503, no answer in time, a body cut short, a slow drip, a dropped connection, a body
of another shape; and `refuse`, a 400 that no retry mends. Written on asyncio streams alone: nothing but this file
decides what goes over the wire.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

FAULTS = ("429", "500", "503", "stall", "cut", "drip", "drop", "shape")
Reply = tuple[int, dict[str, str], bytes]


def tasks(prompt: str, rng: random.Random) -> str:
    """An answer in the shape that the prompt asks for, of words that few others share."""

    def words(n: int) -> str:
        return " ".join(rng.choice(NOUNS) + str(rng.randrange(1000)) for _ in range(n))

    if '"tasks"' in prompt:
        made = [{"instruction": f"Explain {words(6)}?", "answer": words(9)} for _ in range(4)]
        return json.dumps({"tasks": made})
    if '"equal"' in prompt:
        return json.dumps({"equal": rng.random() < 0.2})
    if '"instruction"' in prompt:
        return json.dumps({"instruction": f"Describe {words(7)}."})
    if '"correct": n' in prompt:
        return json.dumps({"reason": "-"} | {name: rng.randrange(2, 6) for name in re.findall(r'"(\w+)": n\b', prompt)})
    return words(12)


NOUNS = [
    "river",
    "lamp",
    "storm",
    "garden",
    "bridge",
    "violin",
    "harbour",
    "copper",
    "meadow",
    "lantern",
    "falcon",
    "ribbon",
    "quarry",
    "orchard",
    "marble",
]


class Faulty:
    def __init__(
        self,
        log: Path,
        *,
        seed: int,
        rate: float,
        permanent: float,
        delay: float,
        only: str | None,
        silent: bool = False,
        world: bool = False,
    ) -> None:
        self.log, self.seed, self.rate, self.permanent, self.delay = log, seed, rate, permanent, delay
        self.only, self.silent = only, silent
        self.teacher: Any = None
        if world:
            from tuneloop.teacher import WorldTeacher

            self.teacher = WorldTeacher(mistakes=0.3)
        self.seen: Counter[str] = Counter()
        self.running = self.peak = 0
        if log.is_file():  # a restarted server goes on where it was
            for line in log.read_text().splitlines():
                if line.startswith("ask "):
                    self.seen[line.split()[1]] += 1

    def note(self, what: str, digest: str, key: str) -> None:
        if self.silent:
            return
        fd = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, f"{what} {digest} {key}\n".encode())
        os.close(fd)

    def fault(self, digest: str) -> str | None:
        """At most two transient faults a body, so that bounded retries always get through."""
        if self.only is not None:
            return self.only
        rng = random.Random(f"{self.seed}{digest}")
        if rng.random() < self.permanent:
            return "refuse" if rng.random() < 0.5 else "nonsense"
        faults = [rng.choice(FAULTS) for _ in range(2) if rng.random() < self.rate]
        seen = self.seen[digest] - 1
        return faults[seen] if seen < len(faults) else None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(re.search(rb"content-length: *(\d+)", head, re.I).group(1))  # type: ignore[union-attr]
                body = await reader.readexactly(length)
                self.running += 1
                self.peak = max(self.peak, self.running)
                try:
                    if not await self.answer(head, body, writer):
                        break
                finally:
                    self.running -= 1
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def answer(self, head: bytes, body: bytes, writer: asyncio.StreamWriter) -> bool:
        """False where the connection must not be used again."""
        found = re.search(rb"idempotency-key: *(\S+)", head, re.I)
        key = found.group(1).decode() if found else "-"
        digest = hashlib.sha256(body).hexdigest()[:24]
        self.seen[digest] += 1
        self.note("ask", digest, key)
        fault = self.fault(digest) if key != "-" else None
        if self.delay:
            await asyncio.sleep(self.delay * random.Random(f"{digest}{self.seen[digest]}").random())
        if fault in ("429", "503"):
            return await send(writer, int(fault), {"retry-after": "0.05"}, {"error": {"message": "slow down"}})
        if fault in ("500", "refuse"):
            return await send(writer, 500 if fault == "500" else 400, {}, {"error": {"message": "no"}})
        if fault == "stall":
            await asyncio.sleep(60)
            return False
        if fault == "drop":
            return False
        data = json.dumps(self.body(json.loads(body), digest, fault)).encode()
        if fault == "cut":
            data = data[: len(data) // 2]
        if fault == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(data))
            for at in range(len(data)):
                writer.write(data[at : at + 1])
                await writer.drain()
                await asyncio.sleep(0.2)
            return False
        await send(writer, 200, {}, data)
        if fault is None or fault == "nonsense":
            self.note("done", digest, key)
        return True

    def body(self, asked: dict[str, Any], digest: str, fault: str | None) -> Any:
        if fault == "shape":
            return {"status": "ok", "result": []}
        prompt = str(asked["messages"][-1]["content"]) if "messages" in asked else str(asked["prompt"])
        told = "no object here" if fault == "nonsense" else self.say(asked, prompt, digest)
        usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": len(told.split()), "total_tokens": 0}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": told}, "text": told}
        return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}

    def say(self, asked: dict[str, Any], prompt: str, digest: str) -> str:
        if self.teacher is None:
            return tasks(prompt, random.Random(digest))
        messages = asked.get("messages") or [{"role": "user", "content": prompt}]
        return str(self.teacher.answer(messages, asked.get("seed") or 0, raw="prompt" in asked))


async def send(writer: asyncio.StreamWriter, status: int, headers: dict[str, str], body: Any) -> bool:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + data)
    await writer.drain()
    return True


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("log", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rate", type=float, default=0.3, help="share of requests that meet a fault, twice")
    parser.add_argument("--permanent", type=float, default=0.05, help="share that is refused or answered with nonsense")
    parser.add_argument("--delay", type=float, default=0.0, help="most seconds before an answer")
    parser.add_argument("--silent", action="store_true", help="keep no log")
    parser.add_argument("--world", action="store_true", help="answers of the scripted teacher, three in ten wrong")
    parser.add_argument("--only", help="this fault for every request")
    given = parser.parse_args()
    server = Faulty(**vars(given))
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    print(listening.sockets[0].getsockname()[1], flush=True)
    await listening.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
