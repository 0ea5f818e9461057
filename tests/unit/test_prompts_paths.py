"""A path through a template writes what Jinja writes, or is not taken."""

import random
from typing import Any

import pytest
from transformers.utils.chat_template_utils import render_jinja_template

from tuneloop.prompts import paths
from tuneloop.prompts.paths import Paths
from tuneloop.prompts.templates import CHATML, PLAIN

CONSTANTS = {"bos_token": "<s>", "eos_token": "</s>"}
EACH = "{% for message in messages %}%s{% endfor %}"
ALTERED = "{% if '<tool>' in message.content[:9] and message.content|length > 12 %}T{% endif %}"
PLACES = "{% set at = message.content|length - 4 %}{% if at < 0 %}{% set at = 0 %}{% endif %}{{ message.content[at:] }}"
SAYS = "{% macro say(x) %}{{ x }}{% endmacro %}"
FOLLOWED = {
    "inner": EACH.replace("%s", "{{ message.content.parts is defined }}{{ message.content }}"),

    "plain": PLAIN,
    "chatml": CHATML,
    "trim": EACH.replace("%s", "{{ '[' + message['content']|trim + ']' }}"),
    "concat": EACH.replace("%s", "{{ message.role ~ ': ' ~ message.content ~ eos_token }}"),
    "prefix": EACH.replace("%s", "{% if message.content.startswith('A') %}!{% endif %}{{ message.content.lstrip() }}"),
    "slice": EACH.replace("%s", ALTERED + "{{ message.content.rstrip('\\n') }}"),
    "places": EACH.replace("%s", PLACES),
    "system": "{% if messages[0].role == 'system' %}{% set first = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}{% for m in rest %}{% if loop.first and first %}{{ first + '\n' }}"
    "{% endif %}{{ m.content or 'nothing' }}{% if m.content == 'A' %}?{% endif %}{% endfor %}",
    "first": "{{ (messages|selectattr('role', 'eq', 'user')|list)[0].role }}{{ messages[-1].content }}",
}  # fmt: skip
REFUSED = {
    "json": EACH.replace("%s", "{{ message.content|tojson }}"),
    "whole": EACH.replace("%s", "{{ message }}"),
    "macro": SAYS + EACH.replace("%s", "{% if 'A' in say(message.content) %}!{% endif %}"),
    "in": EACH.replace("%s", "{% if message.content in 'ABC' %}!{% endif %}x"),
    "split": EACH.replace("%s", "{{ message.content.split('A')[0] }}"),
    "format": EACH.replace("%s", "{{ '%s' % message.content }}{{ '{}'.format(message.content) }}"),
    "join": EACH.replace("%s", "{% if 'A' in ['x', message.content]|join %}!{% endif %}"),
    "items": EACH.replace("%s", "{% for k, v in message.items() %}{{ v }}{% endfor %}"),
    "two": "{% if messages[0].content == messages[1].content %}same{% endif %}{{ messages[0].content }}",
    "joined": EACH.replace("%s", "{% if 'A' in 'x' + message.content %}!{% endif %}"),
    "times": EACH.replace("%s", "{{ 'ab' * (message.content|length) }}"),
    "safe": EACH.replace("%s", "{{ message.content + ('<|im_end|>'|safe) }}"),
    "safe first": EACH.replace("%s", "{% set t = (''|safe) + message.content %}{% if t|length > 9 %}L{% endif %}"),
    "safe equal": EACH.replace("%s", "{% if message.content in ['A'|safe] %}L{% endif %}x"),
    "escape": EACH.replace("%s", "{{ message.content|e }}"),
    "number": EACH.replace("%s", "{% if message.content|length is number %}N{% endif %}x"),
    "index": EACH.replace("%s", "{% if 'x'[message.content] is defined %}N{% endif %}x"),
    "key": EACH.replace("%s", "{{ {'A': 'yes'}[message.content] }}"),
}  # fmt: skip
PIECES = [
    "",
    "A",
    " ",
    "\n",
    "<tool>",
    "</tool>",
    "word",
    "é日本🙂",
    "{{ x }}",
    '"',
    "\\",
    "<|im_end|>",
    "\ue000",
    "</s>",
]


def conversations(count: int) -> list[list[dict[str, Any]]]:
    draw = random.Random(3)
    orders = (["user", "assistant"], ["system", "user", "assistant"], ["user", "assistant"] * 2)
    return [
        [
            {"role": role, "content": "".join(draw.choices(PIECES, k=draw.randint(0, 5)))}
            | ({"weight": draw.randint(0, 1)} if draw.random() < 0.2 else {})
            for role in draw.choice(orders)
        ]
        for _ in range(count)
    ]


def jinja(template: str, messages: list[dict[str, Any]]) -> str:
    return str(render_jinja_template(conversations=[messages], chat_template=template, **CONSTANTS)[0][0])


@pytest.mark.parametrize("name", [*FOLLOWED, *REFUSED])
def test_a_path_writes_what_jinja_writes(name: str) -> None:
    template = (FOLLOWED | REFUSED)[name]
    known = Paths(template, CONSTANTS)
    talks = conversations(400)
    found = [known.render(messages) for messages in talks]
    taken = [(text, messages) for text, messages in zip(found, talks, strict=True) if text is not None]
    assert all(text == jinja(template, messages) for text, messages in taken)
    assert len(taken) > 300 if name in FOLLOWED else not taken


def test_paths_of_one_order_are_few() -> None:
    template = EACH.replace("%s", "".join(f"{{% if '{c}' in message.content %}}{c}{{% endif %}}" for c in "abcdefgh"))
    known = Paths(template, {})
    draw = random.Random(1)
    for _ in range(200):
        messages = [{"role": "user", "content": "".join(draw.choices("abcdefgh", k=4))}]
        text = known.render(messages)
        assert text is None or text == jinja(template, messages)
    assert [len(held) for held in known.found.values()] == [paths.PATHS]


def test_a_question_that_fails_for_a_text_and_weights_of_another_type() -> None:
    stepped = Paths(EACH.replace("%s", "{{ message.content[::message.content|length - 5] }}"), {})
    assert stepped.render([{"role": "user", "content": "abcdefg"}]) == "aceg"
    assert stepped.render([{"role": "user", "content": "abcde"}]) is None
    typed = "{% if messages[0].weight is float %}F{% endif %}{{ messages[0].content }}"
    known = Paths(typed, {})
    for weight in (1, 1.0, True):
        messages = [{"role": "user", "content": "x", "weight": weight}]
        assert known.render(messages) in (None, jinja(typed, messages))
    order = "{{ (messages[0]|list)[0] }}"
    for messages in ([{"role": "user", "content": "x"}], [{"content": "x", "role": "user"}]):
        assert Paths(order, {}).render(messages) in (None, jinja(order, messages))
