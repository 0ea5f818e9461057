"""Personal data to typed placeholders: by pattern, and by check digit where a kind of number has one."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable

EMAIL = re.compile(r"\b[A-Za-z0-9][A-Za-z0-9._%+-]*@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b")
IBAN = re.compile(r"\b[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?\b")
CARD = re.compile(r"(?<![\d.,])(?:\d[ -]?){12,18}\d(?![\d.,]?\d)")
IPV4 = re.compile(r"(?<![\w.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\w]|\.\d)")
IPV6 = re.compile(r"(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){7}[0-9A-Fa-f]{1,4}(?![\w:])")
# With a country code, or as (area) number, or in groups of at least ten digits: years and amounts are none of these.
PHONE = re.compile(
    r"(?<![\w.])(?:\+\d{1,3}[ .-]?(?:\(\d{1,4}\)[ .-]?)?\d{1,4}(?:[ .-]?\d{2,4}){2,4}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[ .-]\d{3}[ .-]\d{4})(?![\w-]|\.\d)"
)
KEY = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|AIza[0-9A-Za-z_-]{35}|hf_[A-Za-z0-9]{30,})\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


def luhn(number: str) -> bool:
    digits = [int(sign) for sign in number if sign.isdigit()]
    doubled = [d if place % 2 == 0 else 2 * d - 9 * (d > 4) for place, d in enumerate(reversed(digits))]
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def iban(number: str) -> bool:
    """ISO 13616: the check digits make the whole number 1 modulo 97."""
    compact = number.replace(" ", "")
    moved = compact[4:] + compact[:4]
    return 15 <= len(compact) <= 34 and int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1


RULES: tuple[tuple[str, re.Pattern[str], Callable[[str], bool]], ...] = (
    ("KEY", KEY, lambda _: True),
    ("EMAIL", EMAIL, lambda _: True),
    ("IBAN", IBAN, iban),
    ("CARD", CARD, luhn),
    ("IP", IPV6, lambda _: True),
    ("IP", IPV4, lambda _: True),
    ("PHONE", PHONE, lambda _: True),
)


def mask(text: str, counts: Counter[str]) -> str:
    """The text with [EMAIL], [PHONE], [CARD], [IBAN], [IP] and [KEY]; `counts` gets one for each."""
    for name, pattern, valid in RULES:

        def placeholder(found: re.Match[str], name: str = name, valid: Callable[[str], bool] = valid) -> str:
            if not valid(found[0]):
                return found[0]
            counts[f"personal_{name.lower()}"] += 1
            return f"[{name}]"

        text = pattern.sub(placeholder, text)
    return text
