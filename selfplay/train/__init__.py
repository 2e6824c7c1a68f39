"""Training of models for either role: the trained role is an argument, and everything else is a recipe."""
