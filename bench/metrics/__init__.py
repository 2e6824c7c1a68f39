"""Metrics: texts or a model in, a value with its interval out."""
