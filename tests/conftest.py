"""Fixtures of every folder. Real input stands beside the checkout in ../shared and is never copied into it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

# No test may wait for a hub that answers slowly or not at all; libraries read this when they are imported.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
MARKED_FOLDERS = ("real", "fault", "browser", "gpu")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test below tests/real is marked `real`, and so on; by folder, so that none is forgotten."""
    for item in items:
        for part in item.path.relative_to(ROOT).parts:
            if part in MARKED_FOLDERS:
                item.add_marker(getattr(pytest.mark, part))


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """What one test silences with --quiet is heard again in the next: the mode belongs to the process."""
    yield
    from tuneloop import console

    console.set_mode()


def _need(path: Path) -> Path:
    if path.exists():
        return path
    what = f"real input '{path.relative_to(ROOT.parent)}' is not beside the checkout"
    if os.environ.get("TUNELOOP_REAL") == "1":
        pytest.fail(f"{what}, and TUNELOOP_REAL=1 says it must be")
    pytest.skip(what)


@pytest.fixture(scope="session")
def repo_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real rows, weights and tokenizers; skips by name, or fails under TUNELOOP_REAL=1."""
    return _need(SHARED)


@pytest.fixture(scope="session")
def stories() -> Path:
    """The 260,032-parameter story model: real weights that any laptop runs."""
    return _need(SHARED / "models" / "stories260K")


@pytest.fixture(scope="session")
def one_thread() -> None:
    """For tests that compare bit for bit, or that run beside others on two cores."""
    import torch

    torch.set_num_threads(1)
