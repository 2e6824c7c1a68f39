import pytest

from selfplay.chat.conversation import Turn
from simulator.guardrails import Guardrails, broken_rule

HISTORY = [Turn("user", "I need a hotel in Rome"), Turn("assistant", "For which night would you like it?")]


def check(text, guardrails=None, *, history=HISTORY, ends=False, cut=False):
    return broken_rule(guardrails or Guardrails(), history, text, ends=ends, cut=cut)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("Tomorrow, please.", None),
        ("", "empty"),
        ("   ", "empty"),
        ("i need a  HOTEL in rome", "repeat"),
        ("For which night would you like it?", "role_drift"),
        ("Sure. Is there anything else I can help you with?", "role_drift"),
        ("As an AI I cannot do that.", "role_drift"),
        ("Assistant: it is booked", "role_drift"),
        ("Can you help me with a train too?", None),
    ],
)
def test_a_turn_breaks_the_first_rule_that_applies(text, rule):
    assert check(text) == rule


def test_short_turns_may_recur_as_peoples_do():
    history = [Turn("user", "Yes, please."), Turn("assistant", "For two?")]
    assert check("Yes, please.", history=history) is None


def test_ending_is_refused_before_the_minimum_number_of_rounds():
    assert check("", ends=True) is None
    assert check("", Guardrails(min_rounds=2), ends=True) == "early_end"
    assert check("", history=[], ends=True) == "early_end"
    assert check("", Guardrails(min_rounds=0), history=[], ends=True) is None


def test_opening_words_and_lengths_follow_the_recipe():
    guardrails = Guardrails(banned_openers=("You", "Here"), max_words=5)
    assert check("you, there", guardrails) == "banned_opener"
    assert check("Yours is fine", guardrails) is None
    assert check("one two three four five six", guardrails) == "too_long"
    assert check("cut off in the mid", guardrails, cut=True) == "too_long"
    assert check("cut off in the mid", cut=True) is None


def test_every_rule_can_be_off():
    for text in ("", "I need a hotel in Rome", "For which night would you like it?"):
        assert check(text, Guardrails.off()) is None
    assert check("", Guardrails.off(), history=[], ends=True) is None
