"""Prompt templates: Jinja in a sandbox; a variable that is missing is an error that names it."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from tuneloop.errors import UsageError, nearest
from tuneloop.store import sha256_text

SHIPPED = Path(__file__).parent / "templates"


class Templates:
    """The shipped prompts, each replaced by a file of its name in `folder`. Raises UsageError 162-165."""

    def __init__(self, folder: Path | str | None = None) -> None:
        self.paths = {path.stem: path for path in sorted(SHIPPED.glob("*.jinja"))}
        if folder is not None:
            own = sorted(Path(folder).glob("*.jinja"))
            if not own:
                raise UsageError(
                    162, "no templates (*.jinja) here", where=f"{folder} (generate.templates)",
                    expected=", ".join(f"{name}.jinja" for name in self.paths), cure="check the path",
                )  # fmt: skip
            for path in own:
                if path.stem not in self.paths:
                    raise UsageError(
                        163, f"no prompt is called '{path.stem}'", where=str(path),
                        expected=nearest(path.stem, self.paths), cure="rename the file",
                    )  # fmt: skip
                self.paths[path.stem] = path
        self.texts = {name: path.read_text(encoding="utf-8") for name, path in self.paths.items()}
        self._compiled: dict[str, Any] = {}

    @cached_property
    def environment(self) -> Any:
        from jinja2 import StrictUndefined
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        return ImmutableSandboxedEnvironment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

    def hash(self, name: str) -> str:
        return sha256_text(self.texts[name])[:8]

    def render(self, name: str, **values: Any) -> str:
        from jinja2 import TemplateError, TemplateSyntaxError, UndefinedError
        from jinja2.exceptions import SecurityError

        path = self.paths[name]
        try:
            if name not in self._compiled:
                self._compiled[name] = self.environment.from_string(self.texts[name])
            return str(self._compiled[name].render(**values)).strip()
        except UndefinedError as error:
            raise UsageError(
                164, f"the template asks for what it is not given: {error.message}", where=str(path),
                expected="only these variables: " + ", ".join(sorted(values)), cure="mend the template",
            ) from error  # fmt: skip
        except TemplateSyntaxError as error:
            raise UsageError(
                165, f"not a template: {error.message}", where=f"{path}:{error.lineno}", cure="mend the template"
            ) from error
        except (SecurityError, TemplateError, TypeError, ValueError, ArithmeticError, LookupError) as error:
            raise UsageError(
                165, f"the template cannot be rendered: {error}", where=str(path), cure="mend the template"
            ) from error
