"""Assistants under a judge: question sets, answers, verdicts and standings, in FastChat's files."""
