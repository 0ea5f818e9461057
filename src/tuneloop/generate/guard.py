"""Started by `sandbox` under `unshare`: shuts itself in, then runs code.py. Imports nothing of tuneloop.

python -I guard.py USER SECONDS MEMORY FILE SPACE PROCESSES HOME READABLE...: sizes in bytes; USER 0 stays root of its
own user namespace, else it becomes that user. The first process runs no code of others: its end is the end of them all.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
import sys

BIND = 0x1000 | 0x4000  # MS_BIND, MS_REC
MOUNT_SETATTR, RULESET, ADD_RULE, RESTRICT_SELF = 442, 444, 445, 446  # the same numbers on every architecture
DROP_BOUNDING, NO_NEW_PRIVILEGES = 24, 38  # prctl
FILES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom", "/etc/ld.so.cache")
# Landlock's rights on files by version of its interface: 13 bits, then REFER, TRUNCATE and, from the fifth, IOCTL_DEV.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
EXECUTE_AND_READ, READ_AND_WRITE_FILE = 0b1101, 0b110

libc = ctypes.CDLL(None, use_errno=True)


def must(found: int, what: str) -> int:
    if found < 0:
        sys.exit(f"{what}: {os.strerror(ctypes.get_errno())}")
    return found


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = [source.encode(), target.encode(), kind.encode(), ctypes.c_ulong(flags), options.encode()]
    must(libc.mount(*arguments), f"mount {target}")


def new_root(home: str, readable: list[str], space: int, user: int) -> None:
    """Makes `/` a file system of nothing but read-only views of what is readable, and an empty `home` of `space` bytes.

    It is mounted over the home outside, in a mount namespace of its own.
    """
    mount("tmpfs", home, "tmpfs", 0, "size=1m,mode=755")
    seen: list[str] = []
    for path in readable:
        for name in dict.fromkeys((path, os.path.realpath(path))):
            if os.path.exists(name) and not any(name == known or name.startswith(known + "/") for known in seen):
                _view(name, home + name)
                seen.append(name)
    inner = home + home
    os.makedirs(inner)
    # struct mount_attr: set read-only and no set-user-ID; below, too (AT_RECURSIVE).
    wanted = struct.pack("QQQQ", 1 | 2, 0, 0, 0)
    must(libc.syscall(MOUNT_SETATTR, -100, home.encode(), 0x8000, wanted, ctypes.c_size_t(len(wanted))), "read-only")
    mount("tmpfs", inner, "tmpfs", 2 | 4, f"size={space},nr_inodes=4096,mode=700,uid={user},gid={user}")
    os.chdir(home)
    must(libc.pivot_root(b".", b"."), "pivot_root")
    must(libc.umount2(b".", 2), "umount")  # the old root, which lies on top of the new one (MNT_DETACH)
    os.chdir("/")


def _view(path: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if os.path.islink(path):
        os.symlink(os.readlink(path), target)
        return
    if os.path.isdir(path):
        os.makedirs(target, exist_ok=True)
    else:
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    mount(path, target, "", BIND)


def fence(home: str) -> None:
    """Landlock (linux/landlock.h): reads anywhere, every right in the home, for this process and what it starts."""
    version = must(libc.syscall(RULESET, None, ctypes.c_size_t(0), 1), "landlock")
    every = (1 << RIGHTS.get(version, 16)) - 1
    rules = must(libc.syscall(RULESET, struct.pack("Q", every), ctypes.c_size_t(8), 0), "landlock")
    for path, allowed in ((home, every), ("/", EXECUTE_AND_READ), ("/dev/null", READ_AND_WRITE_FILE)):
        beneath = struct.pack("=Qi", allowed, os.open(path, os.O_PATH))
        must(libc.syscall(ADD_RULE, rules, 1, beneath, 0), "landlock")
    must(libc.syscall(RESTRICT_SELF, rules, 0), "landlock")


def give_up_rights(user: int) -> None:
    """No capability is left after the next program is started, none can be had by one."""
    number = 0
    while libc.prctl(DROP_BOUNDING, number, 0, 0, 0) == 0:
        number += 1
    if user:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    must(libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0), "prctl")


def main() -> None:
    user, seconds, memory, size, space, processes = map(int, sys.argv[1:7])
    home, readable = sys.argv[7], sys.argv[8:]
    with open(os.path.join(home, "code.py"), "rb") as file:
        code = file.read()
    new_root(home, [*readable, *FILES], space, user)
    child = os.fork()
    if child:
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        sys.exit(status if status >= 0 else 128 - status)
    os.chdir(home)
    null = os.open("/dev/null", os.O_RDWR)
    for stream in (0, 1):  # those from outside lie on a file system that can be written
        os.dup2(null, stream)
    for kind, value in (
        (resource.RLIMIT_CPU, seconds), (resource.RLIMIT_AS, memory), (resource.RLIMIT_FSIZE, size),
        (resource.RLIMIT_NPROC, processes), (resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        resource.setrlimit(kind, (value, value))
    give_up_rights(user)
    with open("code.py", "wb") as file:
        file.write(code)
    fence(home)
    os.execve(sys.executable, [sys.executable, "-I", "-B", "code.py"], {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"})


if __name__ == "__main__":
    main()
