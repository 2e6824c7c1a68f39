"""Personal data and secrets in turns: e-mail addresses, phone numbers, keys, card numbers.

Phone numbers are told from other digits by libphonenumber (international ones, and national ones of _REGIONS), card
numbers by their check digit. Names, addresses and other free text are not found: no rule finds them reliably.
"""

from __future__ import annotations

import re

_EMAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.)+[A-Za-z]{2,24}\b")
_KEY = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|sk_live_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}"
    r"|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}|hf_[A-Za-z0-9]{30,}"
    r"|AIza[0-9A-Za-z_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.S,
)
_CARD = re.compile(r"(?<![\d.])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\d.]?\d)")
_MANY_DIGITS = re.compile(r"\d(?:[ ().-]{0,2}\d){6}")
_NUMBERISH = re.compile(r"\d\.\d+ \d|\d \d+\.\d|(?:\d+\.){3}\d")
"""Coordinates, versions and addresses of machines."""
_BEFORE = re.compile(r"[\w/.-]", re.A)
_AFTER = re.compile(r"\w|[/.:-]\d", re.A)
_REGIONS = ("US", "CN")


def masked(text: str) -> str:
    """The text with [EMAIL], [KEY], [CARD] and [PHONE] in place of what was found, or the very same text."""
    if "@" in text:
        text = _EMAIL.sub("[EMAIL]", text)
    text = _KEY.sub("[KEY]", text)
    if _MANY_DIGITS.search(text):
        text = _CARD.sub(lambda match: "[CARD]" if _passes_luhn(match[0]) else match[0], text)
        text = _without_phones(text)
    return text


def _passes_luhn(number: str) -> bool:
    """The check digit of ISO/IEC 7812."""
    digits = [int(digit) for digit in reversed(number) if digit.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2]]
    return len(digits) >= 13 and (sum(digits[::2]) + sum(doubled)) % 10 == 0


def _without_phones(text: str) -> str:
    import phonenumbers

    for region in _REGIONS:
        found = list(phonenumbers.PhoneNumberMatcher(text, region, leniency=phonenumbers.Leniency.STRICT_GROUPING))
        for match in reversed(found):
            if not _NUMBERISH.search(match.raw_string) and _alone(text, match.start, match.end):
                text = f"{text[: match.start]}[PHONE]{text[match.end :]}"
    return text


def _alone(text: str, start: int, end: int) -> bool:
    """Whether nothing is attached that makes it a part of something else: a path, a version, a decimal."""
    return not _BEFORE.search(text[max(0, start - 1) : start]) and not _AFTER.match(text[end : end + 2])
