"""Raw conversations to clean ones: steps that can be switched one by one, each counted, over any number of rows.

markup, artefacts, personal   rewrite what a turn says
language, steps               drop conversations
splitting                     cuts long conversations into pieces
duplicates                    compares conversations
workers, pipeline             work on all cores; from sources to a file
"""
