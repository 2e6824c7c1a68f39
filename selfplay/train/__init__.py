"""One trainer for both roles: the trained role is an argument, the rest is a recipe."""
