"""Curation of training conversations: filters, deduplication, scores of models, and the report of each step."""
