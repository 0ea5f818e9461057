"""Lets `tuneloop.train` be both the package and the call: `import tuneloop as tl; tl.train(...)`."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class Stage(ModuleType):
    """A stage package that calls the function of its own name."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return getattr(self, self.__name__.rpartition(".")[2])(*args, **kwargs)


def callable_stage(name: str) -> None:
    """Importing a package sets it over any function of that name in its parent; so the package is made callable."""
    sys.modules[name].__class__ = Stage
