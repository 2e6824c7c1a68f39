import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfplay.chat.conversation import Conversation, Turn, conversation_from_pairs
from selfplay.chat.models import locate_model
from selfplay.data.cleaning.artefacts import without_artefacts
from selfplay.data.cleaning.config import CleanConfig
from selfplay.data.cleaning.language import language_of, unwanted_language
from selfplay.data.cleaning.markup import html_to_markdown
from selfplay.data.cleaning.personal import masked
from selfplay.data.cleaning.report import Count, Tally
from selfplay.data.cleaning.splitting import GLUE, pieces, token_lengths
from selfplay.data.cleaning.steps import clean, steps_of

FENCE = "```html\n<p>\n  Copy code\n1 / 2\n</p>\n```"


def talk(*texts, **rest):
    roles = ("user", "assistant")
    return conversation_from_pairs("c", [(roles[n % 2], text) for n, text in enumerate(texts)], **rest)


def texts(conversation):
    return [turn.content for turn in conversation.turns]


def cleaned(conversation, **config):
    steps = steps_of(CleanConfig(**config))
    tally = Tally(steps={step.name: Count() for step in steps})
    return clean(conversation, steps, tally), tally


# HTML to Markdown


@pytest.mark.parametrize(
    ("html", "markdown"),
    [
        ("<p>Hello <strong>you</strong> &amp; <em>me</em></p>", "Hello **you** & *me*"),
        ("<p>one</p>\n<p>two<br>three</p>", "one\n\ntwo  \nthree"),
        ("<ul><li>one</li><li>two</li></ul>", "- one\n- two"),
        ("<h2>Title</h2><p>text</p>", "## Title\n\ntext"),
        ('<p><a href="http://x.y/z">link</a></p>', "[link](http://x.y/z)"),
        ("<p>if x<y then z, Map<String, Integer></p>", "if x<y then z, Map<String, Integer>"),
        ("<p>x<sup>2</sup></p>", "x<sup>2</sup>"),
        ("<p>use snake_case and a*b, List<int>, a &lt; b</p>", "use snake_case and a*b, List<int>, a < b"),
        ('<pre><code class="language-python">if a &lt; b:\n    x_y  = 1\n</code></pre>',
         "```python\nif a < b:\n    x_y  = 1\n```"),
        ('<div class="markdown prose"><p>text</p></div>', "text"),
        ("Dear all,<br>see you.<br/>Bye", "Dear all,\nsee you.\nBye"),
    ],
)  # fmt: skip
def test_turns_that_are_html_become_markdown(html, markdown):
    assert html_to_markdown(html) == markdown


@pytest.mark.parametrize(
    "text",
    [
        "a < b and b > c",
        "List<int> of Map<String, List<T>>",
        "snake_case __init__ *stars* 1 &lt; 2 &amp; 3",
        FENCE,
        "```\n<p>code</p>\n```",
        "`<br>` ends a line, <br> does too",
        "use the <p> tag",
        "<p>Never closed",
        "| a<br>b | c |\n| --- | --- |",
        "<form action='/'><p>What is wrong here?</p></form>",
        "<html><body><p>My page</p></body></html>",
        '<div class="card"><h1>Bar</h1></div>',
        "return (\n<div>\n<h1>Bar</h1>\n</div>\n)",
        "<p>mixed with a fence</p>\n```\nx\n```\n<p>y</p>",
        "<p>wrong <em>order</p></em>",
        "What does <b>bold</b> do?",
        "~~~html\nx<br>y\n~~~",
        "````\n```\na<br>b\n```\n````",
    ],
)
def test_text_about_code_and_markdown_survives_byte_for_byte(text):
    assert html_to_markdown(text) == text


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="ab<>/ \n`|&;=\"'pbrdiv_*", max_size=60))
def test_markup_never_fails_and_leaves_text_without_elements_alone(text):
    result = html_to_markdown(text)
    if "<" not in text or ">" not in text:
        assert result == text


# What chat pages add


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Here:\n```pythonCopy code\nprint()\n```", "Here:\n```python\nprint()\n```"),
        ("```\npythonCopy codeprint()\n```", "```python\nprint()\n```"),
        ("```python\nCopy code\nprint()\n```", "```python\nprint()\n```"),
        ("```Copy code\nx\n```", "```\nx\n```"),
        ("```\nrust\nCopy code\nfn\n```", "```rust\nfn\n```"),
        ("~~~pythonCopy code\nx\n~~~", "~~~python\nx\n~~~"),
        ("glsl\nCopy code\nfloat x;", "glsl\nfloat x;"),
        ("2 / 3\nWhat about it?", "What about it?"),
        ("What about it?\n12 / 12", "What about it?"),
        ("Fine.\nCopy118 chars / 20 words\n", "Fine.\n"),
    ],
)
def test_page_artefacts_go(text, expected):
    assert without_artefacts("user", text) == expected


@pytest.mark.parametrize(
    ("role", "text"),
    [
        ("user", "Click on Copy code to copy it"),
        ("user", FENCE),
        ("user", "```\ncode\n```\nCopy code into your editor and run it."),
        ("user", "```\nCopy code to clipboard\n```"),
        ("user", "```js\nfoo\nCopy code\nx\n```"),
        ("user", "~~~\na\nb\nCopy code\n~~~"),
        ("user", "1 / 2"),
        ("user", "What is 1 / 2\nof 3 / 4 ?"),
        ("user", "3 / 2\nis larger than one"),
        ("user", "13/10/22, 5:13 PM"),
        ("assistant", "The result is\n1 / 2"),
    ],
)
def test_the_same_words_elsewhere_stay(role, text):
    assert without_artefacts(role, text) == text


@pytest.mark.parametrize(
    "unit", ["```\n", "`", "~~~", "<", "<p>", "<br>", "Copy code", "1 / ", "1", " ", "@a.", "eyJ-", "\n"]
)
def test_no_step_takes_long_over_strange_text(unit):
    text = "Copy\n```" + unit * (40_000 // len(unit)) + "x"
    started = time.process_time()
    masked(without_artefacts("user", html_to_markdown(text)))
    language_of(text)
    assert time.process_time() - started < 5


def test_an_emptied_system_turn_is_left_out():
    turns = [("system", "Copy code"), ("user", "hi"), ("assistant", "hello")]
    (kept,), _ = cleaned(conversation_from_pairs("c", turns))
    assert [turn.role for turn in kept.turns] == ["user", "assistant"]


def test_a_conversation_ends_before_a_turn_of_which_nothing_is_left():
    (kept,), tally = cleaned(talk("hi", "hello", "Copy code", "what?"))
    assert texts(kept) == ["hi", "hello"]
    assert not kept.complete
    assert tally.steps["page artefacts"].turns_changed == 2
    kept, tally = cleaned(talk("Copy code", "what?"))
    assert kept == []
    assert tally.steps["page artefacts"].reasons == {"nothing left of the first user turn": 1}


# Personal data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("write to joe.b+x@mail.example.co.uk.", "write to [EMAIL]."),
        ("call +44 20 7946 0958 or (212) 736-5000", "call [PHONE] or [PHONE]"),
        ("手机13912345678。", "手机[PHONE]。"),
        ("card 4111 1111 1111 1111", "card [CARD]"),
        ("key sk-abcdefghij0klmnopqrstuvwx and AKIAABCDEFGHIJKLMNOP", "key [KEY] and [KEY]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY-----", "[KEY]"),
        ("(call 2125551234)", "(call [PHONE])"),
        ("mine: [+44 20 7946 0958]", "mine: [[PHONE]]"),
    ],
)
def test_personal_data_is_masked(text, expected):
    assert masked(text) == expected


@pytest.mark.parametrize(
    "text",
    ["4111 1111 1111 1112", "pi is 3.14159265358979", "on 2019-03-08 at 11:30", "1,000,000,000 people", "a@b",
     "10.0.0.1", "ISBN 978-3-16-148410-0", "sk-learn", "@user", "line 1234567", "X@W.transpose(0,1)",
     "git@github.com:a/b", "react@18.0.0-rc.alpha", "2147483648 overflows", "x = [2125551234, 3105550123]",
     "sk-fading-circle-container-element", "A line -----BEGIN PRIVATE KEY----- starts it.", "Chrome/58.0.3029.110",
     "51.0999 17.0299 5812", "255.255.255.0"],
)  # fmt: skip
def test_other_numbers_and_signs_are_left_alone(text):
    assert masked(text) == text


def test_personal_data_is_masked_or_the_conversation_dropped():
    one = talk("I am joe@x.org", "Hello")
    assert texts(cleaned(one, pii="mask")[0][0])[0] == "I am [EMAIL]"
    assert cleaned(one, pii="drop")[0] == []
    assert cleaned(one)[0] == [one]


# Languages


def test_curly_quotes_and_emoji_do_not_make_another_language():
    one = talk("“What’s up?” she asked — and what should I answer? 😀😀😀", "Say “not much” … and smile 🙂")
    assert unwanted_language(one, {"en"}) is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Quelle est la capitale de la France, s'il vous plaît ?", "fr"),
        ("请问北京有什么好玩的地方？", "zh"),
        ("What is the capital of France, please?", "en"),
        ("ok", None),
        ("```python\nfor x in range(10): print(x)\n```", None),
    ],
)
def test_languages_are_told_from_prose(text, code):
    assert language_of(text) == code


def test_a_short_answer_in_names_is_no_other_language():
    question = "What are seven different sources of protein that I could eat?"
    assert unwanted_language(talk(question, "Yogurt, Milk, Eggs, Tofu, Chicken, Lentils, Nuts"), {"en"}) is None


def test_chinese_without_kana_is_not_japanese():
    assert language_of("描述猫和狗的相同点和不同点。") == "zh"


def test_other_languages_are_dropped_by_name():
    french = talk("Quelle est la capitale de la France, s'il vous plaît ?", "La capitale de la France est Paris.")
    kept, tally = cleaned(french, languages=("en",))
    assert kept == []
    assert tally.steps["languages"].reasons == {"language fr": 1}
    assert cleaned(french, languages=("en", "fr"))[0] == [french]


def test_translations_may_have_two_languages():
    request = talk("Please translate into French: Where is the station?", "Où est la gare, s'il vous plaît ?")
    long = "La gare se trouve au centre de la ville, monsieur, et vous pouvez y aller à pied en moins de dix minutes. "
    mixed = talk("Where is the station, please? I have to go.", long + "Prenez la deuxième rue à gauche.")
    spoken = talk("How do you say where is the station?", long)
    chinese = talk("翻译下面的句子：I would like to order a coffee", "我想点一杯咖啡")
    assert unwanted_language(spoken, {"en"}) is None
    assert unwanted_language(chinese, {"zh"}) is None
    assert unwanted_language(request, {"en"}) is None
    assert unwanted_language(mixed, {"en"}) == "fr"


# Splitting


def words(texts):
    return [len(text.split()) for text in texts]


def long_talk(rounds, size=10):
    return talk(*[f"t{number} " + "w " * (size - 1) for number in range(2 * rounds)])


def test_what_fits_is_not_touched():
    one = long_talk(3)
    assert pieces(one, 6 * (10 + GLUE), words) == (one,)


@pytest.mark.parametrize("budget", [30, 45, 60, 61, 95, 130, 200])
@pytest.mark.parametrize("rounds", [2, 3, 7])
def test_no_round_is_lost_and_none_is_learned_twice(rounds, budget):
    whole = long_talk(rounds)
    cut = pieces(whole, budget, words)
    learned = [turn.content for piece in cut for turn in piece.turns[max(piece.context, 0) :]]
    shown = {turn.content for piece in cut for turn in piece.turns}
    assert shown == set(texts(whole))
    assert len(learned) == len(set(learned))
    # Only where a piece has no room for the round before it is its first user turn context and not learned.
    unlearned = [text for text in texts(whole) if text not in learned]
    assert unlearned == [piece.turns[0].content for piece in cut if piece.context == 1]


@pytest.mark.parametrize("budget", [30, 60, 95, 130])
def test_pieces_start_with_the_user_fit_and_end_with_an_answer(budget):
    for piece in pieces(long_talk(7), budget, words):
        assert piece.turns[0].role == "user"
        assert piece.turns[-1].role == "assistant"
        assert sum(words(texts(piece))) + GLUE * len(piece.turns) <= max(budget, 30)


def test_a_round_longer_than_the_budget_is_a_piece_of_its_own():
    whole = talk("a", "b", "long " * 100, "answer", "c", "d")
    assert [texts(piece)[-1] for piece in pieces(whole, 40, words)] == ["b", "answer", "d"]


def test_only_the_last_piece_shows_the_ending_and_all_share_a_group():
    cut = pieces(long_talk(5), 60, words)
    assert [piece.complete for piece in cut] == [False] * (len(cut) - 1) + [True]
    assert {piece.meta["group"] for piece in cut} == {"c"}
    assert len({piece.id for piece in cut}) == len(cut)


def test_every_piece_has_the_system_turn_and_it_is_never_learned():
    turns = (Turn("system", "be brief"), *long_talk(5).turns)
    cut = pieces(Conversation("c", turns), 80, words)
    assert len(cut) > 1
    assert all(piece.turns[0].role == "system" for piece in cut)
    assert [piece.context for piece in cut] == [0] + [3] * (len(cut) - 1)


def test_an_unanswered_last_turn_is_kept():
    whole = talk(*texts(long_talk(3)), "bye")
    assert pieces(whole, 60, words)[-1].turns[-1].content == "bye"


def test_tokens_are_counted_by_a_real_tokenizer():
    lengths = token_lengths(locate_model("nano", "base"))
    assert lengths(["", "hello", "hello hello"])[0] == 0
    (kept, *more), tally = cleaned(long_talk(8, 40), max_tokens=256)
    assert more
    assert sum(lengths(texts(kept))) <= 256
    assert tally.steps["split"].rows_before == 1


# Rounds, counts


def test_single_turn_conversations_are_dropped_when_asked():
    kept, tally = cleaned(talk("hi", "hello"), min_rounds=2)
    assert kept == []
    assert tally.steps["rounds"].reasons == {"fewer than 2 rounds": 1}


def test_steps_count_rows_and_turns_before_and_after():
    _, tally = cleaned(talk("hi\n1 / 1", "<p>hello</p>"))
    html, artefacts = tally.steps["HTML to Markdown"], tally.steps["page artefacts"]
    assert html.numbers() == {
        "rows_before": 1, "rows_after": 1, "turns_before": 2, "turns_after": 2, "rows_changed": 1, "turns_changed": 1,
    }  # fmt: skip
    assert (artefacts.rows_changed, artefacts.turns_changed) == (1, 1)


@pytest.mark.parametrize("wrong", [{"languages": ("eng",)}, {"near_duplicates": 2}, {"max_tokens": 1}, {"htm": True}])
def test_a_recipe_with_a_wrong_value_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CleanConfig(**wrong)
