"""Assistants under a judge: question sets, answers, verdicts and standings, in the files FastChat reads and writes."""
