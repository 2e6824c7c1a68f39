"""Benchmark of assistants by a judge model: question sets, answers, judgments and standings, in FastChat's files."""
