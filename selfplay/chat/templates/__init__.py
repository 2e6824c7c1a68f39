"""Chat templates, one family a name, one file a variant.

FAMILY.jinja            the family's own template: text only, opens an assistant turn
FAMILY_assistant.jinja  same text; {% generation %} around assistant turns
FAMILY_user.jinja       same text; {% generation %} around user turns and the end of the conversation; opens a user turn
FAMILY_all.jinja        same text; {% generation %} around both (base models)

`nano` resembles ChatML with one token per header: <|user|>text<|im_end|><|assistant|>text<|im_end|> ... and, after the
last assistant turn of a whole conversation, <|user|><|endconversation|>. The end token's name is UserLM's
(arXiv:2510.06552). Templates take two switches beside `messages`: `add_generation_prompt` and `end_of_conversation`.
"""
