"""One module per source schema: `convert(row)` yields checked conversations or raises BadRow/InvalidConversation.

A new schema is a new module here and one line in `selfplay/data/formats.py`. A converter reads text and nothing else:
it neither opens files nor decides what is trained on.
"""
