"""The command line. `main` turns every coded error into its text and exit code; verbs import what they need."""

from __future__ import annotations

import json
import sys

import typer
from typer.exceptions import TyperException

from tuneloop.cli.app import app
from tuneloop.errors import TuneloopError, UsageError


def main() -> None:
    as_json = "--json" in sys.argv
    try:
        code = app(standalone_mode=False)
    except TuneloopError as error:
        _show(error, as_json)
        raise SystemExit(error.exit_code) from None
    except TyperException as error:
        _show(UsageError(105, str(error), cure="tuneloop --help"), as_json)
        raise SystemExit(2) from None
    except (KeyboardInterrupt, typer.Abort):
        print("stopped", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def _show(error: TuneloopError, as_json: bool) -> None:
    print(error, file=sys.stderr)
    if as_json:
        print(json.dumps({"error": error.as_dict()}))
