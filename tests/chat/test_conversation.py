import pytest

from selfplay.chat.conversation import Turn, check_turns, conversation_from_pairs
from selfplay.errors import InvalidConversation
from selfplay.seeds import derive_seed, unit_interval


def test_text_is_stripped_and_rounds_count_answered_user_turns():
    conversation = conversation_from_pairs("x", [("user", " hi "), ("assistant", "hello\n"), ("user", "bye")])
    assert conversation.of("user") == ["hi", "bye"]
    assert conversation.rounds == 1


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ([], "no turns"),
        ([("system", "be brief")], "no turns"),
        ([("assistant", "hi")], "starts with 'assistant'"),
        ([("system", "s"), ("assistant", "hi")], "starts with 'assistant'"),
        ([("user", "a"), ("user", "b")], "turn 2 is by user, expected assistant"),
        ([("user", "a"), ("assistant", " \n")], r"turn 2 \(assistant\) is empty"),
    ],
)
def test_turns_no_template_can_render_are_refused(pairs, message):
    with pytest.raises(InvalidConversation, match=message):
        conversation_from_pairs("x", pairs)


def test_a_conversation_shows_an_ending_only_when_whole_and_answered():
    whole = [("user", "a"), ("assistant", "b")]
    assert conversation_from_pairs("x", whole).has_end_target
    assert not conversation_from_pairs("x", whole, complete=False).has_end_target
    assert not conversation_from_pairs("x", [*whole, ("user", "c")]).has_end_target


def test_a_system_turn_may_come_first():
    check_turns("x", (Turn("system", "be brief"), Turn("user", "hi")))


def test_seeds_depend_on_every_part_and_on_their_order():
    assert derive_seed(1, "a") == derive_seed(1, "a")
    assert len({derive_seed(1, "a"), derive_seed("a", 1), derive_seed(1, "b"), derive_seed(2, "a")}) == 4
    assert 0 <= derive_seed("x") < 2**63
    assert 0 <= unit_interval("x") < 1
