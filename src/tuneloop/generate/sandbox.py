"""Runs Python code that nobody has read: a process of its own without network, files of the user, or much of anything.

Linux only. `unshare` gives it its own network (empty), processes and mounts; `guard` a root folder that holds the
interpreter, read-only, and an empty home in memory, then Landlock and rlimits on time, memory, processes and files. So
it reaches no file and no socket of the user. Where one of these is missing, code is not run: PrerequisiteError 213.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from tuneloop.errors import PrerequisiteError

SECONDS, MEMORY_BYTES, FILE_BYTES, HOME_BYTES, PROCESSES = 5, 1 << 30, 1 << 20, 16 << 20, 32
UNSHARE = ("--mount", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child")
READABLE = ("/usr", "/lib", "/lib64", "/bin")
GUARD = Path(__file__).with_name("guard.py")


def _command(home: str) -> list[str]:
    """Runs as root of its own user namespace; for root of the machine, whose processes are never counted, as nobody."""
    user, own = 0, ["--user", "--map-root-user"]
    if os.getuid() == 0 and Path("/proc/self/uid_map").read_text(encoding="ascii").split() == ["0", "0", "4294967295"]:
        user, own = random.randrange(1 << 30, 1 << 31), []
    limits = (user, SECONDS, MEMORY_BYTES, FILE_BYTES, HOME_BYTES, PROCESSES)
    python = [sys.executable, "-I", str(GUARD), *map(str, limits), home]
    return ["unshare", *own, *UNSHARE, *python, *READABLE, sys.prefix, sys.base_prefix]


@functools.cache
def need_sandbox() -> None:
    """Tries it once with a program that must start and must reach no network, file, socket, process or space beyond."""
    problem = "it is not Linux"
    if sys.platform == "linux":
        problem = "there is no `unshare` program" if shutil.which("unshare") is None else _trial()
    if problem:
        raise PrerequisiteError(
            213, f"generated code cannot be run safely here: {problem}", where="generate.verify: code",
            expected="Linux with namespaces (`unshare --user --map-root-user --mount --net true`) and Landlock",
            cure="take 'code' out of generate.verify, or run it where these are allowed",
        )  # fmt: skip


# `victim` is a file of the user and `server` a socket that listens; both may be changed and reached by the user.
TRIAL = """
import os, signal, socket
def connect():
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(server)
def fill():
    for number in range(64):
        with open(f"fill-{number}", "wb") as file:
            file.write(bytes(1 << 19))
def breed():
    for _ in range(64):
        if os.fork() == 0:
            signal.pause()
attempts = {
    "network": lambda: socket.create_connection(("127.0.0.1", 9), 0.2),
    "/etc/passwd": lambda: open("/etc/passwd"),
    "truncate": lambda: os.truncate(victim, 0),
    "chmod": lambda: os.chmod(victim, 0o777),
    "socket": connect, "space": fill, "processes": breed,
}
for name, attempt in attempts.items():
    try:
        attempt()
    except OSError as error:
        assert error.errno in (1, 2, 11, 13, 28, 30, 101, 111), (name, error)
    else:
        raise SystemExit("the fence has a hole: " + name)
assert [name for _, name in socket.if_nameindex()] in ([], ["lo"]), socket.if_nameindex()
"""


def _trial() -> str:
    # /tmp: the path of a socket holds no more than 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tuneloop-code-") as home, tempfile.TemporaryDirectory(dir="/tmp") as near:
        victim, server = Path(near) / "victim", Path(near) / "server"
        victim.write_text("x", encoding="utf-8")
        known = f"victim, server = {str(victim)!r}, {str(server)!r}\n"
        (Path(home) / "code.py").write_text(known + TRIAL, encoding="utf-8")
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(server))
            listener.listen()
            done = subprocess.run(_command(home), capture_output=True, text=True, timeout=30, check=False)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it does not start"])[-1]


async def run_code(code: str) -> str | None:
    """None where the code ends well in time, else what went wrong in one line. Its output is thrown away."""
    need_sandbox()
    with tempfile.TemporaryDirectory(prefix="tuneloop-code-") as home:
        (Path(home) / "code.py").write_text(code, encoding="utf-8", errors="backslashreplace")
        with open(Path(home) / "errors", "w+b") as errors:
            process = await asyncio.create_subprocess_exec(
                *_command(home), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
            try:
                async with asyncio.timeout(2 * SECONDS):
                    status = await process.wait()
            except TimeoutError:
                return f"still running after {2 * SECONDS} s"
            finally:
                if process.returncode is None:
                    os.killpg(process.pid, 9)
                    await process.wait()
            errors.seek(0)
            said = errors.read(1 << 16).decode("utf-8", "replace").strip().splitlines()
    return None if status == 0 else (said[-1] if said else f"exit status {status}")[:200]
