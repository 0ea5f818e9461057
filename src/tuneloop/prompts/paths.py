"""Rendering by a path that a template is known to take: the same text as Jinja's, without running it.

A template is run once over texts that remember what is done to them (`Text`). That gives a path: the questions it asked
about the texts, with their answers, and what it wrote, as literals and functions of the texts. A conversation whose
texts answer every question in the same way is taken down the same path, so what is written is known. Whatever cannot
be followed (macros, a text as a key, JSON of a text) raises `Lost`, and the caller renders as usual.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.runtime import Undefined
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer
from markupsafe import Markup

Function = Callable[[str], Any]
Part = str | tuple[int, Function]
MARK = "\ue000"  # stands in the letters of every Text, so that one that was copied unseen is found in what is written
PATHS = 16  # that are kept for one order of roles
FOLLOWED = ("strip", "lstrip", "rstrip", "lower", "upper", "title", "capitalize", "replace", "removeprefix")
ASKED = ("startswith", "endswith", "isspace", "isdigit", "isupper", "islower", "isalpha", "isalnum")
COUNTED = ("find", "rfind", "count")
# Filters and tests whose own code only does to a text what `Text` follows.
FILTERS = ("list", "first", "last", "selectattr", "rejectattr", "default", "d", "string", "trim")
TESTS = ("defined", "undefined", "none", "string", "mapping", "true", "false", "eq", "equalto",
         "==", "ne", "!=")  # fmt: skip
BUFFERED = (nodes.Macro, nodes.CallBlock, nodes.FilterBlock, nodes.AssignBlock, nodes.Block, nodes.Include,
            nodes.Import, nodes.FromImport, nodes.Extends)  # fmt: skip


class Lost(Exception):
    """The template does something with a text that is not followed."""


@dataclass
class Path:
    """`asked`: text, question, answer. `written`: literals, and functions of a text."""

    asked: list[tuple[int, Function, Any]] = field(default_factory=list)
    written: list[Part] = field(default_factory=list)

    def follow(self, texts: Sequence[str]) -> str | None:
        """What the template writes for these texts; None where it would take another path."""
        try:
            for index, question, answer in self.asked:
                if question(texts[index]) != answer:
                    return None
            return "".join([part if isinstance(part, str) else part[1](texts[part[0]]) for part in self.written])
        except Exception:  # for this text the template would raise, or go elsewhere before it came here
            return None


class Followed:
    """A value that a template made of the text at `place` by `function`."""

    place: int
    function: Function
    value: Any
    path: Path

    def ask(self, question: Function) -> bool:
        """The answer for the text at hand, noted."""
        function, answer = self.function, question(self.value)
        self.path.asked.append((self.place, lambda text: question(function(text)), answer))
        return bool(answer)

    def made(self, change: Function) -> tuple[int, Function, Any, Path]:
        function = self.function
        return self.place, lambda text: change(function(text)), change(self.value), self.path

    def other(self, value: Any) -> Function:
        """A plain value, or one made of the same text, as a function of that text."""
        if isinstance(value, Followed):
            if value.place != self.place:
                raise Lost("two texts are compared")
            return value.function
        _plain(value)
        return lambda _: value


class Text(str, Followed):
    """A text, or (`parts` alone) several pieces put together, of which nothing can be asked."""

    parts: list[Part]

    def __new__(cls, index: int, function: Function, value: str, path: Path) -> Text:
        new = str.__new__(cls, MARK)
        new.place, new.function, new.value, new.path = index, function, value, path
        new.parts = [(index, function)]
        return new

    @classmethod
    def joined(cls, pieces: Sequence[Any]) -> Text:
        new = str.__new__(cls, MARK)
        new.place = -1
        new.parts = [part for piece in pieces for part in (piece.parts if isinstance(piece, Text) else [str(piece)])]
        return new

    def whole(self) -> Text:
        if self.place < 0:
            raise Lost("a question about several pieces put together")
        return self

    def __str__(self) -> str:
        return self

    def __add__(self, more: str) -> str:
        return Text.joined([self, more]) if isinstance(more, str) else NotImplemented

    def __radd__(self, before: str) -> str:
        return Text.joined([before, self]) if isinstance(before, str) else NotImplemented

    def __eq__(self, other: object) -> bool:
        return self.whole().ask(functools.partial(operator.eq, _constant(other)))

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __contains__(self, part: object) -> bool:
        wanted = _constant(part)
        return self.whole().ask(lambda text: wanted in text)

    def __bool__(self) -> bool:
        return self.whole().ask(bool)

    def __getitem__(self, key: Any) -> str:
        me = self.whole()
        if not isinstance(key, slice):
            raise Lost("a single character")
        bounds = [me.other(bound) for bound in (key.start, key.stop, key.step)]
        function = me.function

        def cut(text: str) -> str:
            found: str = function(text)[slice(*(bound(text) for bound in bounds))]
            return found

        now = slice(*(b.value if isinstance(b, Number) else b for b in (key.start, key.stop, key.step)))
        return Text(me.place, cut, me.value[now], me.path)


class Number(Followed):
    """A length or a place in a text."""

    def __init__(self, index: int, function: Function, value: int, path: Path) -> None:
        self.place, self.function, self.value, self.path = index, function, value, path

    def _combined(self, other: Any, by: Callable[[Any, Any], Any]) -> tuple[Function, Any]:
        mine, theirs = self.function, self.other(other)
        now = other.value if isinstance(other, Number) else other
        return lambda text: by(mine(text), theirs(text)), by(self.value, now)


def _arithmetic(name: str) -> Callable[..., Number]:
    def run(self: Number, other: Any) -> Number:
        by = getattr(operator, name.replace("__r", "__"))
        function, now = self._combined(other, (lambda a, b: by(b, a)) if name.startswith("__r") else by)
        return Number(self.place, function, now, self.path)

    return run


def _comparison(name: str) -> Callable[..., bool]:
    def run(self: Number, other: Any) -> bool:
        function, now = self._combined(other, getattr(operator, name))
        self.path.asked.append((self.place, function, now))
        return bool(now)

    return run


def _lost(name: str) -> Callable[..., Any]:
    def run(*_: Any, **__: Any) -> Any:
        raise Lost(name)

    return run


def _method(name: str) -> Callable[..., Any]:
    def run(self: Text, *args: Any) -> Any:
        constants = [_constant(arg) for arg in args]
        me = self.whole()

        def change(text: str) -> Any:
            return getattr(text, name)(*constants)

        if name in ASKED:
            return me.ask(change)
        return (Text if name in FOLLOWED else Number)(*me.made(change))

    return run


def _furnish() -> None:
    """Every operation on a Text or Number is followed or lost; none falls through to the letters of the mark."""
    kept = {"__new__", "__init__", "__class__", "__getattribute__", "__setattr__", "__delattr__", "__init_subclass__",
            "__subclasshook__", "__doc__", "__dir__", "__getnewargs__", "__sizeof__"}  # fmt: skip
    for name in set(dir(str)) - kept - set(vars(Text)):
        known = name in FOLLOWED + ASKED + COUNTED
        setattr(Text, name, _method(name) if known else _lost(name))
    for name in ("__hash__", "__len__", "__iter__", "__repr__", "__format__"):
        setattr(Text, name, _lost(name))
    for name in ("__add__", "__radd__", "__sub__", "__rsub__"):
        setattr(Number, name, _arithmetic(name))
    for name in ("__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"):
        setattr(Number, name, _comparison(name))
    Number.__bool__ = lambda self: self.ask(bool)  # type: ignore[attr-defined]
    for name in ("__index__", "__int__", "__float__", "__hash__", "__str__", "__repr__", "__format__"):
        setattr(Number, name, _lost(name))


_furnish()


def _constant(value: Any) -> Any:
    """A value that no text has a part in."""
    if isinstance(value, Followed):
        raise Lost("a text as an argument")
    _plain(value)
    return value


def _plain(value: Any) -> None:
    """Raises Lost where a text stands in this value, or may."""
    if isinstance(value, Followed):
        raise Lost("a text inside")
    if isinstance(value, str) and MARK in value:
        raise Lost("a text that was copied unseen")
    if isinstance(value, dict):
        for inner in value.values():
            _plain(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            _plain(inner)
    elif isinstance(value, slice):
        _plain((value.start, value.stop, value.step))
    elif not isinstance(value, str | int | float | None | Undefined):
        raise Lost(f"a {type(value).__name__}")


def _join(*pieces: Any) -> str:
    """The `~` of Jinja."""
    if any(isinstance(piece, Text) for piece in pieces):
        return Text.joined(pieces)
    for piece in pieces:
        _plain(piece)
    return "".join(map(str, pieces))


def _within(part: Any, whole: Any) -> bool:
    """The `in` of Jinja: a plain string would look at the letters of a mark."""
    if isinstance(whole, str) and not isinstance(whole, Text):
        _plain(part)
    return part in whole


class _Rewritten(NodeTransformer):
    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _called("tuneloop_join", node.nodes)

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        if not any(one.op in ("in", "notin") for one in node.ops):
            return node
        if len(node.ops) > 1:
            raise Lost("a chain of comparisons")
        found = _called("tuneloop_within", [node.expr, node.ops[0].expr])
        return found if node.ops[0].op == "in" else nodes.Not(found)


def _called(name: str, arguments: list[nodes.Expr]) -> nodes.Call:
    return nodes.Call(nodes.Name(name, "load"), arguments, [], None, None)


class _Watching(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["%"])

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(obj, "__self__", None)
        if not (isinstance(owner, Text) or obj is _join or obj is _within or obj is Namespace):
            # `get` of a message takes a plain name; other methods of a container may hand out all that it holds.
            # Jinja itself hands on the names of the loop around, for macros.
            _plain((args, {k: v for k, v in kwargs.items() if k not in ("_loop_vars", "_block_vars")}))
            if isinstance(owner, dict | list) and obj.__name__ != "get":
                _plain(owner)
        return super().call(context, obj, *args, **kwargs)

    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Followed) and not hasattr(str if isinstance(obj, Text) else int, attribute):
            return self.undefined(obj="", name=attribute)
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, Followed):
            raise Lost("a text as a key")
        return super().getitem(obj, argument)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if not isinstance(left, Number) and not isinstance(right, Number):
            _plain((left, right))
        return left % right


def _watched_filter(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if name in ("length", "count") and isinstance(args[-1], Text):
            return Number(*args[-1].whole().made(len))
        if name not in FILTERS and not (name in ("length", "count") and isinstance(args[-1], list | dict)):
            # The context or environment that some filters are given first holds nothing of the texts that they read.
            _plain(args[1:] if hasattr(function, "jinja_pass_arg") else args)
            _plain(kwargs)
        found = function(*args, **kwargs)
        if isinstance(found, Markup):
            raise Lost("marked-up text, which escapes what is added to it")
        return found

    return run


def _watched_test(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def run(*args: Any) -> Any:
        if name in ("iterable", "sequence") and isinstance(args[-1], Text):
            return True
        if name not in (*TESTS, "iterable", "sequence"):
            _plain(args)
        return function(*args)

    return run


class Paths:
    """The paths of one template that were found so far; `constants` are the names it is given beside the messages."""

    def __init__(self, template: str, constants: dict[str, Any]) -> None:
        self.constants = constants
        self.found: dict[tuple[tuple[Any, ...], ...], list[Path | None]] = {}
        self.template = _compiled(template)

    def render(self, messages: list[dict[str, Any]]) -> str | None:
        """As Jinja would; None where this cannot be told. Messages hold `role`, `content` (a string) and `weight`."""
        if self.template is None:
            return None
        key = tuple([(tuple(m), m["role"], type(m.get("weight")), m.get("weight")) for m in messages])
        texts = [m["content"] for m in messages]
        known = self.found.setdefault(key, [])
        for path in known:
            if path and (text := path.follow(texts)) is not None:
                return text
        if len(known) == PATHS:
            return None
        try:
            known.append(self._walk(messages))
        except Exception:  # Lost, or what the template itself raises: told by the usual way
            known.append(None)
        return known[-1].follow(texts) if known[-1] else None

    def _walk(self, messages: list[dict[str, Any]]) -> Path:
        path = Path()
        watched = [{**m, "content": Text(i, _same, m["content"], path)} for i, m in enumerate(messages)]
        given = {"messages": watched, "tools": None, "documents": None, "add_generation_prompt": False}
        for piece in self.template.generate(**given, **self.constants):
            parts = piece.parts if isinstance(piece, Text) else [piece]
            if any(isinstance(part, str) and MARK in part for part in parts):
                raise Lost("a text was copied unseen")
            path.written.extend(parts)
        return path


def _same(text: str) -> str:
    return text


@functools.lru_cache(maxsize=16)
def _compiled(template: str) -> Any:
    """The template as Transformers compiles it, watched; None where parts of it cannot be followed."""
    from transformers.utils import chat_template_utils

    own = chat_template_utils._compile_jinja_template(template).environment
    kinds = [type(one) for one in own.extensions.values()]
    env = _Watching(trim_blocks=own.trim_blocks, lstrip_blocks=own.lstrip_blocks, extensions=kinds)
    env.filters = {name: _watched_filter(name, function) for name, function in own.filters.items()}
    env.tests = {name: _watched_test(name, function) for name, function in own.tests.items()}
    env.globals = {**own.globals, "tuneloop_join": _join, "tuneloop_within": _within}
    try:
        tree = env.parse(template)
        if next(tree.find_all(BUFFERED), None) is not None:
            return None
        return env.from_string(_Rewritten().visit(tree))
    except (Lost, TemplateError):
        return None
