"""Corpora of conversations described side by side."""
