"""Self-play: from a recipe to a run of conversations."""
