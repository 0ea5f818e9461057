"""Runs Python code that nobody has read: a process of its own without network, files of the user, or much of anything.

Linux only: `unshare` gives it an empty network, its own processes and users; Landlock lets it read the interpreter and
write in one temporary folder; rlimits bound time, memory and files. Where one of these is missing, code is not run:
PrerequisiteError 213.
"""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tuneloop.errors import PrerequisiteError

SECONDS, MEMORY_BYTES, FILE_BYTES = 5, 1 << 30, 1 << 20
UNSHARE = ("--user", "--map-root-user", "--net", "--ipc", "--uts", "--pid", "--fork", "--kill-child")

# Runs inside, before the code: limits, then Landlock (linux/landlock.h), then the code in a fresh interpreter.
GUARD = """
import ctypes, os, resource, sys
seconds, memory, size, home, readable = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5:]
for kind, value in ((resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, size),
                    (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0)):
    resource.setrlimit(kind, (value, value))
libc = ctypes.CDLL(None, use_errno=True)
READ, ALL = 0b1101, (1 << 13) - 1  # execute, read a file, read a folder; every right of the first version
class Rules(ctypes.Structure):
    _fields_ = [("handled", ctypes.c_uint64)]
class Beneath(ctypes.Structure):
    _pack_, _layout_, _fields_ = 1, "ms", [("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32)]
def call(*arguments):
    found = libc.syscall(*arguments)
    if found < 0:
        sys.exit("landlock: " + os.strerror(ctypes.get_errno()))
    return found
rules = Rules(ALL)
fence = call(444, ctypes.byref(rules), ctypes.c_size_t(ctypes.sizeof(rules)), 0)
for path, allowed in [(home, ALL), *((path, READ) for path in readable if os.path.isdir(path))]:
    rule = Beneath(allowed, os.open(path, os.O_PATH | os.O_CLOEXEC))
    call(445, fence, 1, ctypes.byref(rule), 0)
libc.prctl(38, 1, 0, 0, 0)  # no new privileges
call(446, fence, 0)
os.chdir(home)
os.execve(sys.executable, [sys.executable, "-I", "-B", "code.py"], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})
"""
READABLE = ("/usr", "/lib", "/lib64", "/bin", "/dev")


def _command(home: str) -> list[str]:
    readable = [*READABLE, sys.prefix, sys.base_prefix]
    limits = [str(SECONDS), str(MEMORY_BYTES), str(FILE_BYTES), home]
    return ["unshare", *UNSHARE, sys.executable, "-I", "-c", GUARD, *limits, *readable]


@functools.cache
def need_sandbox() -> None:
    """Tries it once with a program that must be able to start and must not reach out or read /etc/passwd."""
    problem = "it is not Linux"
    if sys.platform == "linux":
        problem = "there is no `unshare` program" if shutil.which("unshare") is None else _trial()
    if problem:
        raise PrerequisiteError(
            213, f"generated code cannot be run safely here: {problem}", where="generate.verify: code",
            expected="Linux with user namespaces (`unshare --user --net true`) and Landlock",
            cure="take 'code' out of generate.verify, or run it where these are allowed",
        )  # fmt: skip


TRIAL = """
import socket
for attempt in (lambda: socket.create_connection(("127.0.0.1", 9), 0.2), lambda: open("/etc/passwd")):
    try:
        attempt()
    except OSError as error:
        assert error.errno in (13, 101, 111), error
    else:
        raise SystemExit("the fence has a hole")
import os
assert [name for _, name in socket.if_nameindex()] in ([], ["lo"]), socket.if_nameindex()
"""


def _trial() -> str:
    with tempfile.TemporaryDirectory(prefix="tuneloop-code-") as home:
        (Path(home) / "code.py").write_text(TRIAL, encoding="utf-8")
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
