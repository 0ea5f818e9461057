"""What the report shows."""

from __future__ import annotations

from pydantic import Field

from tuneloop.config.base import Section


class ReportConfig(Section):
    title: str = "tuneloop report"
    max_rows: int = Field(2000, ge=0)
