"""Personal data and secrets in turns: e-mail addresses, phone numbers, keys, card numbers.

Phone numbers are told from other digits by libphonenumber (international ones, and national ones of _REGIONS), card
numbers by their check digit. Names, addresses and other free text are not found: no rule finds them reliably.
"""

from __future__ import annotations

import re

_EMAIL = re.compile(
    r"(?<![\w.+-])(?!git@)[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@"
    r"(?:[A-Za-z0-9-]{0,62}[A-Za-z][A-Za-z0-9-]{0,62}\.){1,8}[A-Za-z]{2,24}(?![\w(])"
)
_KEY = re.compile(
    r"(?<![\w-])(?:sk-(?=[A-Za-z_-]{0,60}\d)[A-Za-z0-9_-]{20,}|sk_live_[A-Za-z0-9]{16,}|AKIA[0-9A-Z]{16}"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|hf_[A-Za-z0-9]{30,}|AIza[0-9A-Za-z_-]{35}|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,})"
    r"|-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----\s"
    r"(?:[A-Za-z0-9+/=\s]*-----END [A-Z ]{0,20}PRIVATE KEY-----|[A-Za-z0-9+/=]{40,}[A-Za-z0-9+/=\s]*)"
)
_CARD = re.compile(r"(?<![\d.])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\d.]?\d)")
_MANY_DIGITS = re.compile(r"\d(?:[ ().-]{0,2}\d){6}")
_NUMBERISH = re.compile(r"\d\.\d+ \d|\d \d+\.\d|(?:\d+\.){3}\d")
"""Coordinates, versions and addresses of machines."""
_BEFORE = re.compile(r"[\w/.-]", re.A)
_AFTER = re.compile(r"\w|[/.:-]\d", re.A)
_PHONE_WORD = re.compile(
    r"tel|phone|call|mobile|cell|fax|whatsapp|dial|number|sms|text|电话|電話|手机|手機|联系|號碼|号码", re.I
)
_OPENING = re.compile(r"[^+(\d（]*")
"""What the matcher takes in before a number: a bracket."""
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
            opening = _OPENING.match(match.raw_string)
            start = match.start + (opening.end() if opening else 0)
            if _is_phone(text, start, match.end):
                text = f"{text[:start]}[PHONE]{text[match.end :]}"
    return text


def _is_phone(text: str, start: int, end: int) -> bool:
    """Whether valid digits are written as a phone number, or beside a word for it, and nothing is attached to them."""
    number = text[start:end]
    attached = _BEFORE.search(text[max(0, start - 1) : start]) or _AFTER.match(text[end : end + 2])
    if attached or _NUMBERISH.search(number):
        return False
    return not number.isdigit() or _PHONE_WORD.search(text[max(0, start - 24) : start]) is not None
