"""Chat templates, one file a family; `selfplay.chat.families` derives the variants.

A file is the family's text in Jinja, with two tags of ours around what each side writes, its end token included:
{% user %} ... {% enduser %} and {% assistant %} ... {% endassistant %}. In the variant that trains a role its tags
become {% generation %}, the others vanish. The variable `trained` is that role ('' in the family's own template), so
that the user variant opens a user turn as its generation prompt; `user_end` ends a user turn in the variants that
train it where the family's own text has no token there. Templates take two switches beside `messages`:
`add_generation_prompt` and `end_of_conversation`, which closes a whole conversation with a user turn that is only
<|endconversation|> (UserLM's name, arXiv:2510.06552).

A space before a message belongs to its first token ("USER:" + " Hello"), so a generation prompt ends without it.
"""
