"""Seeds that depend on names, never on order.

A conversation's seed comes from (run seed, conversation id), a turn's from (conversation seed, turn, attempt), so the
same run gives the same draws whatever the scheduler does first.
"""

from __future__ import annotations

from hashlib import blake2b


def derive_seed(*parts: str | int) -> int:
    """A 63-bit seed from an ordered list of names and numbers; stable across machines and Python versions."""
    text = "\x1f".join(map(str, parts))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


def unit_interval(*parts: str | int) -> float:
    """A number in [0, 1) derived like a seed; used to split data by name instead of by position."""
    return derive_seed(*parts) / 2**63
