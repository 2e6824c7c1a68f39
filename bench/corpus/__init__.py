"""Statistics of conversation corpora, side by side in one table."""
