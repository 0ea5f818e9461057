"""`power`: how many rows a comparison needs, and what so many rows can show."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tuneloop import console
from tuneloop.cli.options import Json


def power(
    points: Annotated[float | None, typer.Option(help="the difference to see, in points of 100")] = None,
    rows: Annotated[int | None, typer.Option(help="rows that there are")] = None,
    flips: Annotated[float, typer.Option(help="share of rows that change between the two models")] = 0.2,
    wanted: Annotated[float, typer.Option("--power", help="chance to see the difference where it is there")] = 0.8,
    tests: Annotated[int, typer.Option(help="tests that share the 5 %, by Bonferroni")] = 1,
    as_json: Json = False,
) -> None:
    """How many rows it takes to see a difference of so many points, by the exact paired test."""
    from tuneloop.errors import UsageError
    from tuneloop.stats import detectable_difference, mcnemar_power, rows_needed, rows_needed_unpaired

    if points is None and rows is None:
        raise UsageError(158, "nothing to plan", where="power", expected="--points, --rows, or both")
    if not 0 < flips <= 1 or not 0 < wanted < 1 or tests < 1 or (rows or 1) < 1 or (points is not None and points <= 0):
        raise UsageError(158, "a share lies between 0 and 1, a count is 1 or more", where="power")
    if points is not None and points / 100 > flips:
        raise UsageError(
            158, f"a difference of {points:g} points needs at least {points:g} % of rows to change", where="--flips"
        )
    alpha, found = 0.05 / tests, {"flips": flips, "power": wanted, "alpha": 0.05 / tests}
    if points is not None:
        found["rows_paired"] = rows_needed(points / 100, flips, wanted, alpha)
        found["rows_unpaired"] = rows_needed_unpaired(points / 100, 0.5, wanted, alpha)
        console.say(f"to see {points:g} points with {100 * wanted:g} % power, {100 * flips:g} % of rows changing:")
        console.say(f"  {found['rows_paired']:,.0f} rows when both models answer the same rows (exact McNemar)")
        console.say(f"  {found['rows_unpaired']:,.0f} rows for each when they answer different ones")
    if rows is not None:
        found["detectable"] = detectable_difference(rows, flips, alpha)
        console.say(f"{rows:,} rows show {100 * found['detectable']:.1f} points four times out of five")
    if rows is not None and points is not None:
        found["power_here"] = mcnemar_power(rows, points / 100, flips, alpha)
        console.say(f"and {points:g} points {100 * found['power_here']:.0f} times out of a hundred")
    if as_json:
        print(json.dumps(found))
