"""Where a run starts: the family a base belongs to, the tokens it is given, and the templates that are refused."""

import pytest
from family_tokenizers import save_base, tokenizer_for

from assistant.train import ASSISTANT
from selfplay.chat.families import END_OF_CONVERSATION, FAMILIES, family
from selfplay.errors import EmptyLossMask, ModelError
from selfplay.train.config import TrainConfig
from selfplay.train.tokenizer import recognise, start_tokenizer
from simulator.train import SIMULATOR

LOOP = "{% for m in messages %}"
TURN = "[{{ m.role }}]{% generation %}{{ m.content }}</s>{% endgeneration %}"
OPEN = "{% endfor %}{% if end_of_conversation %}[user]{% generation %}<|endconversation|>{% endgeneration %}{% endif %}"
GOOD = LOOP + TURN + OPEN


def recipe(base, **changes):
    values = {"role": "user", "base": str(base), "data": {"datasets": ["sample"]}, "output_dir": "unused"}
    return TrainConfig.model_validate({**values, **changes})


@pytest.fixture(scope="module")
def vicuna_base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "vicuna", "vicuna")


@pytest.fixture(scope="module")
def plain_base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("bases") / "plain", "chatml")


@pytest.mark.parametrize("name", [name for name in FAMILIES if name not in ("qwen3", "alpaca", "alpaca_lora")])
def test_a_base_with_a_template_goes_on_in_its_own_family(name):
    tokenizer = tokenizer_for(name)
    tokenizer.chat_template = family(name).template()
    assert recognise(tokenizer).name == name
    tokenizer.chat_template = family(name).template("user")  # what this package trained before
    assert recognise(tokenizer).name == name


def test_a_template_that_says_the_same_in_other_words_is_recognised():
    from importlib.resources import files

    tokenizer = tokenizer_for("qwen2.5")
    tokenizer.chat_template = files("trl.chat_templates").joinpath("qwen2_5.jinja").read_text("utf-8")
    assert recognise(tokenizer).name == "qwen2.5"


def test_a_template_of_no_family_is_refused_with_the_way_out():
    from importlib.resources import files

    tokenizer = tokenizer_for("qwen3")
    tokenizer.chat_template = files("trl.chat_templates").joinpath("qwen3.jinja").read_text("utf-8")
    with pytest.raises(ModelError, match="that of no family here; name the one to train with"):
        recognise(tokenizer)


def test_a_base_without_template_gets_chatml_and_its_tokens(plain_base):
    start = start_tokenizer(recipe(plain_base), SIMULATOR, [])
    assert start.family.name == "chatml"
    added = start.tokenizer.convert_ids_to_tokens(start.new_tokens)
    assert added == ["<|im_start|>", "<|im_end|>", END_OF_CONVERSATION]
    assert start.tokenizer.eos_token == "<|im_end|>"
    assert start.renderer.opens_turn_of("user")


def test_an_assistant_is_given_no_end_of_conversation(vicuna_base):
    start = start_tokenizer(recipe(vicuna_base, role="assistant", template="vicuna_v1.1"), ASSISTANT, [])
    assert start.new_tokens == []
    assert END_OF_CONVERSATION not in start.tokenizer.get_vocab()
    assert start.family.name == "vicuna"


def test_a_tokenizer_that_lacks_the_end_token_is_refused(plain_base):
    with pytest.raises(ModelError, match=r"lacks .*<\|eot_id\|>, which template 'llama3' needs"):
        start_tokenizer(recipe(plain_base, template="llama3"), SIMULATOR, [])


@pytest.mark.parametrize(
    ("template", "error", "message"),
    [
        (GOOD.replace("{% generation %}", "").replace("{% endgeneration %}", ""), EmptyLossMask, "no {% generation %}"),
        (GOOD, ModelError, "does not open a user turn"),
        (
            GOOD + "{% if add_generation_prompt %}[user]{% endif %}" + "{{ messages|length }}",
            ModelError,
            "does not open a user turn",
        ),
        (
            LOOP + "{{ loop.revindex }}" + TURN + OPEN + "{% if add_generation_prompt %}1[user]{% endif %}",
            ModelError,
            "not prefix-preserving: without system turn, appending turn 2",
        ),
        (
            GOOD.replace("</s>{% endgeneration %}", "{% endgeneration %}</s>")
            + "{% if add_generation_prompt %}[user]{% endif %}",
            ModelError,
            "not with the end token '</s>'",
        ),
        ("{% for m in messages %}", EmptyLossMask, "no {% generation %}"),
        (GOOD + "{% if %}", ModelError, "does not render"),
    ],
)
def test_templates_that_cannot_be_trained_are_refused(vicuna_base, tmp_path, template, error, message):
    file = tmp_path / "own.jinja"
    file.write_text(template)
    with pytest.raises(error, match=message.replace("{", r"\{")):
        start_tokenizer(recipe(vicuna_base, template=str(file)), SIMULATOR, [])


def test_a_template_file_of_ones_own_is_taken(vicuna_base, tmp_path):
    file = tmp_path / "own.jinja"
    file.write_text(GOOD + "{% if add_generation_prompt %}[user]{% endif %}")
    assert start_tokenizer(recipe(vicuna_base, template=str(file)), SIMULATOR, []).renderer.opens_turn_of("user")
    with pytest.raises(ModelError, match="no template that can be read"):
        start_tokenizer(recipe(vicuna_base, template="missing.jinja"), SIMULATOR, [])
