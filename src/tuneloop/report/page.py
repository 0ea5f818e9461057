"""The templates of the pages: every value is escaped but pictures, which hold numbers alone."""

from __future__ import annotations

from typing import Any


def environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    loader = PackageLoader("tuneloop.report", "")
    found = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    found.filters["svg"] = Markup  # only for pictures of draw.py
    return found
