"""Small functions over tensors, made into one kernel each where a compiler is at hand and the run is long enough.

The result of the compiled and of the plain function differ in the last bits, so a run decides once, from its config
and its data alone, and a resumed run decides the same.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import platform
import shutil
from collections.abc import Callable
from typing import Any

import torch

# Operations of a whole run above which a minute of preparation pays: a minute is 5e13 here (0.8 TFLOP/s).
WORTH = 3e14

_compiled = False


def fused(function: Callable[..., Any]) -> Callable[..., Any]:
    """Runs as one compiled kernel while `use(True)` holds, else as written."""
    quick = torch.compile(function, dynamic=True, fullgraph=True)

    @functools.wraps(function)
    def run(*args: Any) -> Any:
        return (quick if _compiled else function)(*args)

    return run


def use(compiled: bool) -> None:
    """Whether functions marked `fused` run compiled from here on."""
    global _compiled
    _compiled = compiled


def compiler(device: str) -> str:
    """Why nothing can be compiled for this device; empty where it can."""
    if device == "cpu":
        return "" if shutil.which("g++") or shutil.which("clang++") else "no C++ compiler (g++) on this machine"
    if device == "cuda":
        return "" if importlib.util.find_spec("triton") else "triton is not installed"
    return f"not tried on {device}"


def keep_memory() -> None:
    """Lets malloc keep what it once had: giving large blocks back and faulting them in again halves the bandwidth.

    glibc only: M_MMAP_THRESHOLD (-3) and M_TRIM_THRESHOLD (-1), mallopt(3).
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 2**30)
    libc.mallopt(-1, 2**31 - 1)
