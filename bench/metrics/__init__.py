"""Metrics of conversations and of models: each function returns a value with its interval."""
